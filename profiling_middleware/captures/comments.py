"""Lines for people that every profile has: whose it is, and what it cost."""

from __future__ import annotations

import platform
import sys

from profiling_middleware.model import CaptureInfo
from profiling_middleware.sampling.engine import Engine, EngineReport
from profiling_middleware.units import format_duration
from profiling_middleware.version import VERSION


def identity(info: CaptureInfo) -> list[str]:
    """Which capture it is, and what took it."""
    interpreter = f"{platform.python_implementation()} {platform.python_version()} on {sys.platform}"
    lines = [
        f"profiling_middleware {VERSION}, {interpreter} {platform.machine()}",
        f"service: {info.service}",
        f"instance: {info.instance}",
        f"capture: {info.capture_id} ({info.kind}, {info.trigger}, window of {info.started:%Y-%m-%dT%H:%M:%SZ})",
    ]
    return [*lines, f"partial: {info.partial}"] if info.partial else lines


def cost(engine: Engine, report: EngineReport, duration_ns: int) -> list[str]:
    """How the engine looked during `duration_ns`, and what that cost."""
    seconds = max(duration_ns, 1) / 1e9
    share = report.cpu_ns / max(duration_ns, 1)
    return [
        f"engine: {engine.name}, {engine.rate} looks/s asked, {engine.rate_used:.1f} allowed by the overhead limit, "
        f"{report.looks / seconds:.1f} taken",
        f"cost of taking: {format_duration(report.cpu_ns / 1e9)} CPU, {share:.2%} of a core, shared by all "
        "captures of that time",
    ]
