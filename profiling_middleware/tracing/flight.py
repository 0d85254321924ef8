"""The flight recorder: the last seconds of the trace, for when somebody wants to know what has just happened."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

from profiling_middleware.tracing.sinks import Sink

FLIGHT_SECONDS = 30.0
_MOST_BYTES = 4 * 1024 * 1024


class Losses(NamedTuple):
    """What is not in the chunks of some time."""

    dropped: int
    """Events."""
    left_out: int
    """Chunks."""


class _Chunk(NamedTuple):
    content: bytes
    began_ns: int
    ended_ns: int
    dropped: int
    """How many events had been dropped by then."""


class FlightRecorder:
    """A sink that keeps the newest chunks: half a minute of them, or less when they are big."""

    def __init__(
        self,
        dropped: Callable[[], int] = lambda: 0,
        *,
        seconds: float = FLIGHT_SECONDS,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        """`dropped` tells how many events had been dropped by the end of a chunk that is written, else by now."""
        self._dropped, self._dropped_before = dropped, dropped()
        self._kept_ns = int(seconds * 1e9)
        self._most_bytes = most_bytes
        self._chunks: deque[_Chunk] = deque()
        self._left_out: deque[_Chunk] = deque()
        """Those of the same time for which there was no room, without their content."""
        self._bytes = 0

    def write(self, chunk: bytes, began_ns: int, ended_ns: int) -> None:
        self._chunks.append(_Chunk(chunk, began_ns, ended_ns, self._dropped()))
        self._bytes += len(chunk)
        while self._bytes > self._most_bytes:
            left_out = self._chunks.popleft()
            self._bytes -= len(left_out.content)
            self._left_out.append(left_out._replace(content=b""))
        for chunks in (self._left_out, self._chunks):
            while chunks and chunks[0].ended_ns < ended_ns - self._kept_ns:
                old = chunks.popleft()
                self._bytes -= len(old.content)
                self._dropped_before = old.dropped

    def copy_to(self, sink: Sink, since_ns: int) -> None:
        """Hands `sink` the chunks that end after a moment of the monotonic clock."""
        for content, began_ns, ended_ns, _ in self._chunks:
            if ended_ns > since_ns:
                sink.write(content, began_ns, ended_ns)

    def losses(self, since_ns: int) -> Losses:
        """What those chunks have not."""
        before = self._dropped_before
        for chunk in chain(self._left_out, self._chunks):
            if chunk.ended_ns <= since_ns:
                before = chunk.dropped
        return Losses(self._dropped() - before, sum(chunk.ended_ns > since_ns for chunk in self._left_out))
