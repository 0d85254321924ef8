"""What was waited for, and who made others wait: summed for as long as it is collected, read as often as wanted."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from profiling_middleware.model import Contention, Frame, Label, ProfileSample, Reason, Sample, Stack, Thread
from profiling_middleware.sampling.engine import EngineReport
from profiling_middleware.threads import OWN_THREADS
from profiling_middleware.uncollected import make_untracker
from profiling_middleware.waits import WaitNames

MAX_STACKS = 20_000
_OTHER_STACKS = (Frame("<other stacks>", "", 0, 0),)
_NOT_SEEN_WAITING = Stack((Frame("<not seen waiting>", "", 0, 0),))
_MOST_CARRIED = 1_000
_MOST_KNOWN = 10_000
# `threading` numbers the threads that nobody has named: a service that starts one a request has new names for ever.
_UNNAMED = re.compile(r"^Thread-\d+")

_Key = tuple[tuple[Frame, ...], tuple[Label, ...]]
_Wait = tuple[str, Stack, Stack | None, Reason, tuple[Label, ...]]
"""The name of a thread, where it waits or lets others go on, where one of them waits, why, and for whom."""
Sums = Mapping[_Key, tuple[float, float]]
"""By frames and labels: contentions, and their delay in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What had been collected at one moment, since `began_ns` (UTC, nanoseconds since 1970)."""

    began_ns: int
    lasted_ns: int
    block: Sums
    mutex: Sums
    overflowed: int
    """Contentions that stand under <other stacks>."""


class ContentionSums:
    """Contentions and delay by stack and labels, for a bounded number of them."""

    def __init__(self, limit: int = MAX_STACKS) -> None:
        self._limit = limit
        self._sums: dict[_Key, list[float]] = {}
        self._untrack = make_untracker()
        self.overflowed = 0

    def add(self, stack: Stack, labels: tuple[Label, ...], count: float, delay_ns: float) -> None:
        entry = self.entry(stack, labels) or self.other()
        entry[0] += count
        entry[1] += delay_ns

    def entry(self, stack: Stack, labels: tuple[Label, ...]) -> list[float] | None:
        """To which contentions and their delay are to be added; None when there is no room for these."""
        key = stack.frames, labels
        entry = self._sums.get(key)
        if entry is None and len(self._sums) < self._limit:
            entry = self._sums[self._untrack(key)] = self._untrack([0.0, 0.0])
        return entry

    def other(self) -> list[float]:
        """Likewise, for one that found no room, which is counted."""
        self.overflowed += 1
        return self._sums.setdefault((_OTHER_STACKS, ()), [0.0, 0.0])

    def copy(self) -> Sums:
        return {key: (count, delay) for key, (count, delay) in self._sums.items()}


class Collector:
    """A listener of the engine. All calls come from the timer's thread, so what is read is whole."""

    hears_work, hears_waits, wait_moments_ns = False, True, 0

    def __init__(self, wait_looks: float, began: EngineReport) -> None:
        """`wait_looks` a second at threads that wait for something else than a lock: those are measured one by one.

        `began` is what the engine had done before.
        """
        self.wait_looks = wait_looks
        self.began = began
        self._block = ContentionSums()
        self._mutex = ContentionSums()
        self._began_ns, self._began = time.time_ns(), time.monotonic_ns()
        self._names = WaitNames()
        self._untrack = make_untracker()
        self._entries: dict[_Wait, list[float]] = {}
        """Of waits that are likely to come again, so that their frames and labels need not be compared."""
        self._carried: dict[Thread, int] = {}
        """Waits between two pieces of work, of threads not seen waiting since; less than nothing: told already."""

    def collected(self) -> Collected:
        """What there is up to now, if the engine has just been flushed."""
        overflowed = self._block.overflowed + self._mutex.overflowed
        lasted_ns = time.monotonic_ns() - self._began
        return Collected(self._began_ns, lasted_ns, self._block.copy(), self._mutex.copy(), overflowed)

    def receive(self, samples: Sequence[Sample]) -> None:
        """Takes what threads waited for besides locks that tell of themselves."""
        for sample in samples:
            waited = sample.wall_ns - sample.cpu_ns - sample.lock_ns
            if waited == 0 or _is_own(sample.thread):
                continue
            # Not here: it is at work, or this lock tells itself how long it is waited for. Where it has waited is
            # likely where it will be seen waiting next. Less than nothing: what it has worked is part of waits told
            # before, as the portable engine learns only later where that was.
            elsewhere = sample.moving or sample.reason is Reason.MEASURED or waited < 0
            carried = self._carried.pop(sample.thread, 0)
            if elsewhere or waited + carried <= 0:
                self._carry(sample.thread, waited + carried)
                continue
            entry = self._entry((sample.thread.name, sample.stack, None, sample.reason, sample.labels))
            entry[0] += 1
            entry[1] += waited + carried

    def _carry(self, thread: Thread, waited: int) -> None:
        self._carried[thread] = waited
        if len(self._carried) > _MOST_CARRIED:
            # Of threads that have ended, most likely: the oldest goes where it can be seen.
            thread = next(iter(self._carried))
            rest = self._carried.pop(thread)
            if rest > 0:
                self._block.add(_NOT_SEEN_WAITING, (Label("wait", "other"), *_thread_label(thread.name)), 1, rest)

    def receive_contentions(self, contentions: Sequence[Contention]) -> None:
        """Takes waits for locks, and the releases that ended them."""
        for thread, stack, waiter, count, delay_ns, labels, reason, _, _ in contentions:
            if _is_own(thread):
                continue
            entry = self._entry((thread.name, stack, waiter, reason, labels))
            entry[0] += count
            entry[1] += delay_ns

    def _entry(self, wait: _Wait) -> list[float]:
        """What is to be added to: in the block profile, or with a waiter in the mutex profile.

        Nobody was held up who had only no work yet: its wait is idle in the block profile, and whoever brought the work
        is not in the mutex profile.
        """
        entry = self._entries.get(wait)
        if entry is None:
            name, stack, waiter, reason, labels = wait
            kind = Label("wait", self._names.kind(reason, waiter or stack))
            if waiter is not None and kind.value == "idle":
                return self._keep(wait, [0, 0])
            by = (Label("waiter", self._names.waiting(waiter)),) if waiter is not None else ()
            sums = self._block if waiter is None else self._mutex
            entry = sums.entry(stack, (kind, *by, *_thread_label(name), *labels))
            if entry is None:
                return sums.other()
            self._keep(wait, entry)
        return entry

    def _keep(self, wait: _Wait, entry: list[float]) -> list[float]:
        if len(self._entries) >= _MOST_KNOWN:
            self._entries.clear()
        self._entries[self._untrack(wait)] = entry
        return entry

    def receive_lock_waits(self, waits: Sequence[Contention]) -> None:
        """It asks for none: they are in the sums."""


def profile_samples(sums: Sums) -> list[ProfileSample]:
    """One sample a stack and labels: (contentions, nanoseconds)."""
    stacks: dict[tuple[Frame, ...], Stack] = {}
    return [
        ProfileSample(stacks.setdefault(frames, Stack(frames)), labels, (max(1, round(count)), round(delay)))
        for (frames, labels), (count, delay) in sums.items()
    ]


def _is_own(thread: Thread) -> bool:
    return thread.name.startswith(OWN_THREADS)


def _thread_label(name: str) -> tuple[Label]:
    return (Label("thread", _UNNAMED.sub("Thread-N", name)),)
