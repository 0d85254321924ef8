"""From the samples of threads to what each of them did when: ran, or waited, and for what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from profiling_middleware.model import Frame, Reason, Sample
from profiling_middleware.threads import OWN_THREADS
from profiling_middleware.waits import WaitNames

RUNS = "runs"
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

    def of(self, samples: Iterable[Sample]) -> list[ThreadState]:
        """The states that these samples tell of, those that follow each other made one."""
        states: list[ThreadState] = []
        last: dict[int, _Open] = {}
        for time_ns, thread, stack, cpu_ns, wall_ns, _, _, reason, moving in samples:
            tid = thread.native_id
            if not tid or thread.name.startswith(OWN_THREADS):
                continue
            ran_from, began = time_ns - cpu_ns, time_ns - max(wall_ns, cpu_ns)
            if ran_from - began >= _LEAST_NS:
                if moving or reason is Reason.UNKNOWN:
                    self._go_on(last, states, tid, began, ran_from, _UNKNOWN, None)
                else:
                    frame = stack.frames[0] if stack.frames else None
                    self._go_on(last, states, tid, began, ran_from, self._names.kind(reason, stack), frame)
            if cpu_ns:
                self._go_on(last, states, tid, ran_from, time_ns, RUNS, None)
        states += (one.state(tid) for tid, one in last.items())
        if len(self._ended) > _MOST_THREADS:
            self._ended.clear()
        return states

    def _go_on(
        self,
        last: dict[int, _Open],
        states: list[ThreadState],
        tid: int,
        began: int,
        ended: int,
        name: str,
        frame: Frame | None,
    ) -> None:
        began = max(began, self._ended.get(tid, 0))
        if ended <= began:
            return
        self._ended[tid] = ended
        before = last.get(tid)
        if before is not None:
            if before.name == name and before.frame == frame and began - before.ended < _LEAST_NS:
                before.ended = ended
                return
            states.append(before.state(tid))
        last[tid] = _Open(began, ended, name, frame)
