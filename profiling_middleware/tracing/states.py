"""From the samples of threads to what each of them did when: ran, or waited, and for what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


class ThreadStates:
    """Samples come late and in part overlap: what a thread did is told in order, and no time of it twice."""

    def __init__(self) -> None:
        self._names = WaitNames()
        self._ended: dict[int, int] = {}
        """By thread: until when its states have been told."""

    def of(self, samples: Iterable[Sample]) -> Iterator[ThreadState]:
        """The states that these samples tell of, those that follow each other made one."""
        open_states: dict[int, ThreadState] = {}
        for sample in samples:
            if not sample.thread.native_id or sample.thread.name.startswith(OWN_THREADS):
                continue
            for state in self._parts(sample):
                before = open_states.get(state.tid)
                if before is None:
                    open_states[state.tid] = state
                elif before[3:] == state[3:] and state.began_ns - before.ended_ns < _LEAST_NS:
                    open_states[state.tid] = before._replace(ended_ns=state.ended_ns)
                else:
                    yield before
                    open_states[state.tid] = state
        yield from open_states.values()
        if len(self._ended) > _MOST_THREADS:
            self._ended.clear()

    def _parts(self, sample: Sample) -> Iterator[ThreadState]:
        tid, ended = sample.thread.native_id, sample.time_ns
        ran_from = ended - sample.cpu_ns
        began = ended - max(sample.wall_ns, sample.cpu_ns)
        if ran_from - began >= _LEAST_NS:
            elsewhere = sample.moving or sample.reason is Reason.UNKNOWN
            name = _UNKNOWN if elsewhere else self._names.kind(sample.reason, sample.stack)
            frames = sample.stack.frames
            yield from self._told(tid, began, ran_from, name, None if elsewhere or not frames else frames[0])
        if sample.cpu_ns:
            yield from self._told(tid, ran_from, ended, RUNS, None)

    def _told(self, tid: int, began: int, ended: int, name: str, frame: Frame | None) -> Iterator[ThreadState]:
        began = max(began, self._ended.get(tid, 0))
        if ended > began:
            self._ended[tid] = ended
            yield ThreadState(tid, began, ended, name, frame)
