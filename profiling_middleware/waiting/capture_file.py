"""A capture as a file: its gzipped bytes as they go to the store, and behind them what it is and where it goes.

The end of the file is JSON, its length (4 bytes, big-endian) and a mark of 8 bytes.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import asdict
from typing import Any

from profiling_middleware.model import Artifact, CaptureInfo
from profiling_middleware.private_file import PrivateFile

_END = struct.Struct(">I8s")
_MARK = b"pm-spool"
_MOST_ABOUT = 64 * 1024


class Damaged(Exception):  # noqa: N818 - it says what is the case
    """This is not a whole capture."""


def size_of(artifact: Artifact) -> int:
    """How long its file is, in bytes."""
    return len(artifact.body) + len(_about(artifact))


def write_capture(descriptor: int, artifact: Artifact) -> None:
    """Writes all of it to an empty file and waits until it is on disk. Raises OSError."""
    for chunk in artifact.chunks():
        _write(descriptor, chunk)
    _write(descriptor, _about(artifact))
    os.fsync(descriptor)


def read_capture(descriptor: int) -> Artifact:
    """What was written; its body is read when it is needed, and closes the descriptor. Raises Damaged, OSError."""
    size = os.fstat(descriptor).st_size
    length, mark = _END.unpack(_read_at(descriptor, size - _END.size, _END.size))
    if mark != _MARK or length > min(_MOST_ABOUT, size):
        raise Damaged
    body_size = size - _END.size - length
    try:
        about: dict[str, Any] = json.loads(_read_at(descriptor, body_size, length))
        info = CaptureInfo(**about["info"])
        key, own_key = str(about["key"]), str(about["own_key"])
    except (ValueError, KeyError, TypeError):
        raise Damaged from None
    return Artifact(info=info, key=key, own_key=own_key, body=PrivateFile.of(descriptor, body_size))


def close_body(artifact: Artifact) -> None:
    """Of one that was read, and is not needed any more: closes the descriptor."""
    if isinstance(artifact.body, PrivateFile):
        artifact.body.close()


def _about(artifact: Artifact) -> bytes:
    about = {"key": artifact.key, "own_key": artifact.own_key, "info": asdict(artifact.info)}
    text = json.dumps(about).encode()
    return text + _END.pack(len(text), _MARK)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_at(descriptor: int, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset) if offset >= 0 else b""
    if len(data) != size:
        raise Damaged
    return data
