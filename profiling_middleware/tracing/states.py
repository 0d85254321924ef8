"""From the samples of threads to what each of them did when: ran, or waited, and for what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from profiling_middleware.model import Frame, Reason
from profiling_middleware.threads import OWN_THREADS
from profiling_middleware.tracing.seen import SampleFields
from profiling_middleware.waits import WaitNames

RUNS, IDLE = "runs", "idle"
_UNKNOWN = "waits"
# Between two pieces of work closer than this, nothing is worth showing.
_LEAST_NS = 100_000
_MOST_THREADS = 10_000


class ThreadState(NamedTuple):
    """What a thread did for some time."""

    tid: int
    began_ns: int
    ended_ns: int
    state: str
    """`runs`, `waits`, or a name of a wait as in block profiles."""
    frame: Frame | None
    """Where it waited."""


class _Open:
    """What a thread does as far as is known by now."""

    __slots__ = ("began", "ended", "frame", "name")

    def __init__(self, began: int, ended: int, name: str, frame: Frame | None) -> None:
        self.began, self.ended, self.name, self.frame = began, ended, name, frame

    def state(self, tid: int) -> ThreadState:
        return ThreadState(tid, self.began, self.ended, self.name, self.frame)


class ThreadStates:
    """Samples come late and in part overlap: what a thread did is told in order, and no time of it twice."""

    def __init__(self) -> None:
        self._names = WaitNames()
        self._ended: dict[int, int] = {}
        """By thread: until when its states have been told."""

    def forget(self) -> None:
        """Lets go of stacks."""
        self._names.clear()

    def of(self, samples: Iterable[SampleFields], *, idle: bool = True) -> Iterator[ThreadState]:
        """The states that these samples tell of, those that follow each other made one; the idle ones if wanted."""
        last: dict[int, _Open] = {}
        ended_at = self._ended
        for time_ns, thread, stack, cpu_ns, wall_ns, _, _, reason, moving in samples:
            tid = thread.native_id
            if not tid or thread.name.startswith(OWN_THREADS):
                continue
            ran_from, began = time_ns - cpu_ns, time_ns - max(wall_ns, cpu_ns)
            if ran_from - began >= _LEAST_NS:
                unknown = moving or reason is Reason.UNKNOWN
                name = _UNKNOWN if unknown else self._names.kind(reason, stack)
                if name == IDLE and not idle:
                    # Most of what waits. Nothing that comes later is told of this time.
                    ended_at[tid] = max(ran_from, ended_at.get(tid, 0))
                else:
                    frame = None if unknown or not stack.frames else stack.frames[0]
                    told = self._go_on(last, tid, began, ran_from, name, frame)
                    if told is not None:
                        yield told
            if cpu_ns:
                told = self._go_on(last, tid, ran_from, time_ns, RUNS, None)
                if told is not None:
                    yield told
        for tid, one in last.items():
            yield one.state(tid)
        if len(ended_at) > _MOST_THREADS:
            ended_at.clear()

    def _go_on(
        self, last: dict[int, _Open], tid: int, began: int, ended: int, name: str, frame: Frame | None
    ) -> ThreadState | None:
        """Returns what that puts an end to."""
        began = max(began, self._ended.get(tid, 0))
        if ended <= began:
            return None
        self._ended[tid] = ended
        before = last.get(tid)
        if before is not None and before.name == name and began - before.ended < _LEAST_NS and before.frame == frame:
            before.ended = ended
            return None
        last[tid] = _Open(began, ended, name, frame)
        return before.state(tid) if before is not None else None
