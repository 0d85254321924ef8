"""Where a capture lies in the store: `profiles/{service}/{kind}/{YYYY-MM-DD}/{HH-MM-SS}.pprof.gz`."""

from __future__ import annotations

import os
import re
import secrets
import socket

from profiling_middleware.model import CaptureInfo


def shared_key(info: CaptureInfo) -> str:
    """The key every process of the service would use for this second; who comes second finds it taken."""
    return f"{_folder(info)}/{info.started:%H-%M-%S}{_suffix(info)}"


def own_key(info: CaptureInfo) -> str:
    """The key no other capture has: when it is taken, the capture itself is what lies there."""
    return f"{_folder(info)}/{info.started:%H-%M-%S}_{info.instance}-{info.capture_id}{_suffix(info)}"


def new_capture_id() -> str:
    """64 random bits: a reader drops doubles by it."""
    return secrets.token_hex(8)


def new_instance_id() -> str:
    """Names this process: host, process id, and 32 random bits because containers share both."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().split(".")[0]).strip("-")[:32] or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


def _folder(info: CaptureInfo) -> str:
    return f"profiles/{info.service}/{info.kind}/{info.started:%Y-%m-%d}"


def _suffix(info: CaptureInfo) -> str:
    return ".trace.gz" if info.kind == "trace" else ".pprof.gz"
