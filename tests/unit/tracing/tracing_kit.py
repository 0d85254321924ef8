"""What the tests of traces share."""

from __future__ import annotations

import time
from typing import Any

from profiling_middleware.model import Contention, Frame, Label, Reason, Sample, Stack, Thread
from profiling_middleware.trace_events import TraceEvent
from profiling_middleware.tracing.buffer import TraceBuffer, events_of
from profiling_middleware.tracing.seen import SeenThreads

MS, SECOND = 1_000_000, 1_000_000_000
WORKER = Thread("worker", 4712)


def taken(buffer: TraceBuffer, kind: type[TraceEvent] | None = None) -> list[Any]:
    """The events that have been told since the last time, those of one kind if it is given."""
    return [event for event in events_of(buffer.fetch()) if kind is None or isinstance(event, kind)]


def stack(*functions: str) -> Stack:
    """Of functions of the shop, leaf first."""
    return Stack(tuple(Frame(f"shop.{name}", "/srv/shop.py", line, 1) for line, name in enumerate(functions, 1)))


def sample(ended: int, at: Stack, *, cpu: int = 0, wall: int = 0, thread: Thread = WORKER, **more: Any) -> Sample:
    """Of times in nanoseconds."""
    return Sample(ended, thread, at, cpu, max(wall, cpu), **more)


def wait(ended: int, delay: float, at: Stack, *, thread: Thread = WORKER, **more: Any) -> Contention:
    """One wait for a lock, told by itself."""
    return Contention(thread, at, None, 1.0, delay, time_ns=ended, **{"reason": Reason.LOCK, **more})


def spin(nanoseconds: int) -> tuple[int, int]:
    """Works so long; returns the first and the last reading of the clock."""
    first = time.monotonic_ns()
    while (last := time.monotonic_ns()) < first + nanoseconds:
        pass
    return first, last


def routed(subject: Any) -> tuple[Label, ...] | None:
    """What the router knows of a request: what is in its scope."""
    if "endpoint" not in subject:
        return None
    return Label("endpoint", subject["endpoint"]), Label("method", subject["method"])


class Chunks:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.chunks: list[tuple[bytes, int, int]] = []

    def write(self, chunk: bytes, began_ns: int, ended_ns: int) -> None:
        self.chunks.append((chunk, began_ns, ended_ns))

    @property
    def content(self) -> bytes:
        return b"".join(chunk for chunk, _, _ in self.chunks)

    def having(self, text: str) -> list[int]:
        """Which of them have it."""
        return [number for number, (chunk, _, _) in enumerate(self.chunks) if text.encode() in chunk]


class Engine:
    """Stands in for the sampling engine and the instruments: hands out what the test has put in when it is flushed."""

    def __init__(self) -> None:
        self.listeners: list[SeenThreads] = []
        self.unheard: list[Sample] = []
        self.fails: Exception | None = None

    def attach(self, listener: SeenThreads) -> None:
        if self.fails is not None:
            raise self.fails
        self.listeners.append(listener)

    def detach(self, listener: SeenThreads) -> None:
        self.flush()
        self.listeners.remove(listener)

    def flush(self) -> None:
        samples, self.unheard = self.unheard, []
        for listener in self.listeners:
            listener.receive(samples)
