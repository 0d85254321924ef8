"""Steps that kept an event loop from serving anyone, and what they did meanwhile."""

from __future__ import annotations

from array import array
from typing import NamedTuple

from profiling_middleware.model import Stack
from profiling_middleware.trace_events import StepEvent
from profiling_middleware.tracing.seen import SeenSamples

STALL_NS = 100_000_000
"""A step of this length is a stall."""
# Samples come up to two seconds late; what the longest stall looked like is not remembered from its beginning.
_PATIENCE_NS = 3_000_000_000
_REMEMBERED = 5_000
# A sample of the work before a long wait that nobody looked at is no reason to tell that the step was there.
_LEAST_SHARE = 0.1


class Stall(NamedTuple):
    """A step that took too long."""

    step: StepEvent
    stack: Stack | None
    """Where it was for most of that time, None when it was seen for too little of it."""


class Stalls:
    """Waits for the samples of a stall."""

    def __init__(self) -> None:
        self._seen = _Seen()
        self._waiting: list[StepEvent] = []

    def forget(self) -> None:
        """Lets go of samples."""
        self._seen = _Seen()

    def add(self, step: StepEvent) -> None:
        """A step of STALL_NS and more."""
        self._waiting.append(step)

    def remember(self, samples: SeenSamples) -> None:
        """What has been seen of all threads."""
        self._seen.add(samples)

    def take(self, now_ns: int, *, final: bool = False) -> list[Stall]:
        """Those that are explained, or will not be; all if this is the `final` time."""
        ready = []
        for step in list(self._waiting):
            times, seen_after = self._seen.of(step)
            if final or seen_after or now_ns - step.ended_ns > _PATIENCE_NS:
                self._waiting.remove(step)
                # Less has been seen of it than would tell where it was.
                unknown = sum(times.values()) < _LEAST_SHARE * (step.ended_ns - step.began_ns)
                ready.append(Stall(step, None if unknown else max(times, key=lambda stack: times[stack])))
        return ready


class _Seen:
    """The newest samples: as numbers, since objects that stay are what the garbage collector's long runs go through."""

    def __init__(self) -> None:
        self._tids, self._times, self._cpu, self._wall = array("q"), array("q"), array("q"), array("q")
        self._moving = bytearray()
        self._stacks: list[Stack] = []

    def add(self, samples: SeenSamples) -> None:
        # Column by column: most of what is remembered nobody asks for.
        self._tids.extend([thread.native_id for thread in samples.column("thread")])
        self._times.extend(samples.column("time_ns"))
        self._cpu.extend(samples.column("cpu_ns"))
        self._wall.extend(samples.column("wall_ns"))
        self._moving.extend(samples.column("moving"))
        self._stacks.extend(samples.column("stack"))
        if len(self._stacks) >= 2 * _REMEMBERED:
            for kept in (self._tids, self._times, self._cpu, self._wall, self._moving, self._stacks):
                del kept[:-_REMEMBERED]

    def of(self, step: StepEvent) -> tuple[dict[Stack, int], bool]:
        """What each stack has of a step's time, in nanoseconds, and whether its thread has been seen since.

        Found after the step, a thread has gone on to something else, whatever it did before.
        """
        times: dict[Stack, int] = {}
        seen_after = False
        for number, seen in enumerate(self._tids):
            if seen != step.tid:
                continue
            time_ns, stack = self._times[number], self._stacks[number]
            seen_after = seen_after or time_ns >= step.ended_ns
            if step.began_ns < time_ns <= step.ended_ns:
                times[stack] = times.get(stack, 0) + min(self._spent(number), time_ns - step.began_ns)
        return times, seen_after

    def _spent(self, number: int) -> int:
        # What it worked is known; where it waited is where it is found, unless it is found at work.
        cpu_ns = self._cpu[number]
        return cpu_ns if self._moving[number] else max(self._wall[number], cpu_ns)
