"""The truth itself: a thread's own CPU clock, read around every piece of its work."""

from __future__ import annotations

import random
import time
from typing import NamedTuple


class Spent(NamedTuple):
    """CPU time of one piece of a program: nanoseconds in all, and how often it was done."""

    cpu_ns: int
    times: int


class Clock:
    """One thread's CPU time, piece by piece. Made and used on that thread.

    `start()`, a statement, `lap("its name")`: the statement's CPU time is kept under that name. The name stands for
    the statement's lines, see pieces.py. A reading costs under a microsecond and a piece takes hundreds of them.
    """

    def __init__(self, seconds: float, seed: int | None = None) -> None:
        """`seconds` from now, by the wall clock, `running()` turns False."""
        self.random = random.Random(seed)
        self._until = time.monotonic() + seconds
        self._spent: dict[str, list[int]] = {}
        self._began_ns = self._last_ns = time.thread_time_ns()

    def running(self) -> bool:
        """Whether the program has time left."""
        return time.monotonic() < self._until

    def start(self) -> None:
        """What was done since the last lap belongs to no piece."""
        self._last_ns = time.thread_time_ns()

    def lap(self, piece: str) -> None:
        """What was done since the last lap or start belongs to `piece`."""
        now = time.thread_time_ns()
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
        return time.thread_time_ns() - self._began_ns
