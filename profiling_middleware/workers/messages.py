"""What workers say to one another on their sockets.

A frame is its length (4 bytes, big-endian) and a JSON object. The asking worker sends a Question, and later perhaps
`{"end": reason}`; hanging up cancels. The other one answers `{"begun": true}` at once and, when its capture has ended,
`{"size": N}` and N bytes, what it would have stored; or `{"error": words}` at any time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

VERSION = 1
"""Of all this: during a deployment workers of two versions of the service may meet."""
MAX_FRAME_BYTES = 4096
_LENGTH_BYTES = 4
_MAX_WORDS = 200


class Garbage(Exception):  # noqa: N818 - it says what is the case
    """What came is not what workers say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which capture is wanted; see `Profiler.record`."""

    kind: str
    seconds: float | None
    full: bool = True
    last: float | None = None

    def frame(self) -> bytes:
        return to_frame({"version": VERSION, **asdict(self)})

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Question:
        """Raises Garbage. Whether it can be captured is the profiler's to say."""
        if message.get("version") != VERSION:
            raise Garbage(f"it is asked in version {str(message.get('version'))[:20]}, and this is version {VERSION}")
        kind, full = message.get("kind"), message.get("full")
        if not isinstance(kind, str) or not isinstance(full, bool):
            raise Garbage("kind or full is of another type")
        return cls(kind=kind, seconds=_seconds(message, "seconds"), full=full, last=_seconds(message, "last"))


def _seconds(message: Mapping[str, Any], name: str) -> float | None:
    value = message.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise Garbage(f"{name} is no number")


def to_frame(message: Mapping[str, object]) -> bytes:
    """Raises Garbage for one that is too long."""
    content = json.dumps(message).encode()
    if len(content) > MAX_FRAME_BYTES:
        raise Garbage(f"{len(content)} bytes are too much")
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content


class Inbox:
    """Takes bytes as they come, and gives frames and what lies between them."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def frame(self) -> dict[str, Any] | None:
        """The next frame, None while it is not complete. Raises Garbage."""
        if len(self._bytes) < _LENGTH_BYTES:
            return None
        size = int.from_bytes(self._bytes[:_LENGTH_BYTES], "big")
        if size > MAX_FRAME_BYTES:
            raise Garbage(f"a frame of {size} bytes")
        if len(self._bytes) < _LENGTH_BYTES + size:
            return None
        content = bytes(self._bytes[_LENGTH_BYTES : _LENGTH_BYTES + size])
        del self._bytes[: _LENGTH_BYTES + size]
        try:
            message = json.loads(content)
        except (ValueError, RecursionError):
            raise Garbage("a frame that is no JSON") from None
        if not isinstance(message, dict):
            raise Garbage("a frame that is no object")
        return message

    def raw(self, most: int) -> bytes:
        """Up to `most` bytes of what came after the last frame."""
        data = bytes(self._bytes[:most])
        del self._bytes[:most]
        return data


def words(text: object) -> str:
    """What another process says, fit for a header, a comment and the log."""
    return re.sub(r"[^\x20-\x7e]+", " ", str(text))[:_MAX_WORDS]
