"""Steps that kept an event loop from serving anyone, and what they did meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from profiling_middleware.model import Sample, Stack
from profiling_middleware.trace_events import StepEvent

STALL_NS = 100_000_000
"""A step of this length is a stall."""
# Samples come up to two seconds late; what the longest stall looked like is not remembered from its beginning.
_PATIENCE_NS = 3_000_000_000
_REMEMBERED = 5_000


class Stall(NamedTuple):
    """A step that took too long."""

    step: StepEvent
    tid: int
    stack: Stack | None
    """Where it was for most of that time, None when nobody looked."""


class Stalls:
    """Waits for the samples of a stall."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=_REMEMBERED)
        self._waiting: list[tuple[StepEvent, int]] = []

    def add(self, step: StepEvent, tid: int) -> None:
        """A step of STALL_NS and more, in thread `tid`."""
        self._waiting.append((step, tid))

    def remember(self, samples: Iterable[Sample]) -> None:
        """What has been seen of all threads."""
        self._samples.extend(samples)

    def take(self, now_ns: int, *, final: bool = False) -> list[Stall]:
        """Those that are explained, or will not be; all if this is the `final` time."""
        ready = []
        for waiting in list(self._waiting):
            step, tid = waiting
            times: dict[Stack, int] = {}
            newest = 0
            for sample in self._samples:
                if sample.thread.native_id == tid:
                    newest = max(newest, sample.time_ns)
                    # What it worked is known; where it waited is where it is found. Found waiting after the step, it
                    # has gone on meanwhile: most likely to the selector, where it waits for the next.
                    spent = max(sample.wall_ns, sample.cpu_ns) if sample.time_ns <= step.ended_ns else sample.cpu_ns
                    shared = min(sample.time_ns, step.ended_ns) - max(sample.time_ns - spent, step.began_ns)
                    if shared > 0:
                        times[sample.stack] = times.get(sample.stack, 0) + shared
            if final or newest >= step.ended_ns or now_ns - step.ended_ns > _PATIENCE_NS:
                self._waiting.remove(waiting)
                ready.append(Stall(step, tid, max(times, key=lambda stack: times[stack], default=None)))
        return ready
