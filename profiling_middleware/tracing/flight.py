"""The flight recorder: the last seconds of the trace, for when somebody wants to know what has just happened."""

from __future__ import annotations

from collections import deque

from profiling_middleware.tracing.sinks import Sink

FLIGHT_SECONDS = 30.0
_MOST_BYTES = 4 * 1024 * 1024


class FlightRecorder:
    """A sink that keeps the newest chunks: half a minute of them, or less when they are big."""

    def __init__(self, seconds: float = FLIGHT_SECONDS, most_bytes: int = _MOST_BYTES) -> None:
        self._kept_ns = int(seconds * 1e9)
        self._most_bytes = most_bytes
        self._chunks: deque[tuple[bytes, int, int]] = deque()
        self._bytes = 0

    def write(self, chunk: bytes, began_ns: int, ended_ns: int) -> None:
        self._chunks.append((chunk, began_ns, ended_ns))
        self._bytes += len(chunk)
        while self._chunks and (self._bytes > self._most_bytes or self._chunks[0][2] < ended_ns - self._kept_ns):
            self._bytes -= len(self._chunks.popleft()[0])

    def copy_to(self, sink: Sink, since_ns: int) -> None:
        """Hands `sink` the chunks that end after a moment of the monotonic clock."""
        for kept in self._chunks:
            if kept[2] > since_ns:
                sink.write(*kept)
