"""The truth itself: a thread's own CPU clock, read around every piece of its work."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import NamedTuple

Reading = Callable[[], int]
"""CPU time of the calling thread in nanoseconds, since some moment."""


class Spent(NamedTuple):
    """CPU time of one piece of a program: nanoseconds in all, and how often it was done."""

    cpu_ns: int
    times: int


class Clock:
    """One thread's CPU time, piece by piece. Made and used on that thread.

    `start()`, a statement, `lap("its name")`: the statement's CPU time is kept under that name. The name stands for
    the statement's lines, see pieces.py. A reading costs under a microsecond and a piece takes hundreds of them.
    """

    def __init__(self, seconds: float, seed: int | None = None, read: Reading = time.thread_time_ns) -> None:
        """`seconds` from now, by the wall clock, `running()` turns False."""
        self.random = random.Random(seed)
        self._read = read
        self._until = time.monotonic() + seconds
        self._spent: dict[str, list[int]] = {}
        self._began_ns = self._last_ns = read()

    def running(self) -> bool:
        """Whether the program has time left."""
        return time.monotonic() < self._until

    def start(self) -> None:
        """What was done since the last lap belongs to no piece."""
        self._last_ns = self._read()

    def lap(self, piece: str) -> None:
        """What was done since the last lap or start belongs to `piece`."""
        now = self._read()
        spent = self._spent.get(piece)
        if spent is None:
            spent = self._spent[piece] = [0, 0]
        spent[0] += now - self._last_ns
        spent[1] += 1
        self._last_ns = now

    def varied(self, mean: float) -> float:
        """A length around `mean`, half as much more or less: nothing may march in step with a sampler."""
        return mean * self.random.uniform(0.5, 1.5)

    def pieces(self) -> dict[str, Spent]:
        """What the pieces have taken so far."""
        return {piece: Spent(*spent) for piece, spent in self._spent.items()}

    def total_ns(self) -> int:
        """CPU time of the thread since this clock was made, pieces and the rest."""
        return self._read() - self._began_ns


class TimeOnCore:
    """A `Reading` for the thread that makes it, if that never waits: the time that passed, less what it was put aside.

    To ask Linux for a thread's CPU clock makes the scheduler look whether the thread's slice is over. Where it shares
    its core it is then put aside at readings rather than at ticks, and ticks, at which CPU timers are looked at, come
    within its longer pieces only. The time it was kept from running is written down anyway: the second field of
    schedstat (Documentation/scheduler/sched-stats.rst).
    """

    def __init__(self) -> None:
        self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)

    def __call__(self) -> int:
        aside = self._aside_ns()
        while True:
            now, before, aside = time.monotonic_ns(), aside, self._aside_ns()
            if aside == before:
                return now - aside

    def close(self) -> None:
        """No reading after this."""
        os.close(self._file)

    def _aside_ns(self) -> int:
        return int(os.pread(self._file, 100, 0).split()[1])
