"""Works briefly, then sleeps, again and again: CPU time belongs to `work`, apart from what the sleep itself costs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.truth.clock import Clock
from benchmarks.truth.stage import Actor, size_per_ms

_PROBE = 5_000
REST = "rest"
"""The piece that is the call of `sleep`: entering and leaving the kernel is CPU time, too."""


def prepare(work_ms: float, sleep_ms: float) -> Sequence[Actor]:
    """One actor that works and sleeps so many milliseconds on average."""
    size = work_ms * size_per_ms(work, _PROBE)

    def act(clock: Clock) -> None:
        while clock.running():
            work(clock, int(clock.varied(size)))
            rest(clock, clock.varied(sleep_ms / 1000))

    return (act,)


def work(clock: Clock, size: int) -> None:
    clock.start()
    found = 0
    for number in range(size):
        found += number * 3 % 7
    clock.lap("work")


def rest(clock: Clock, seconds: float) -> None:
    clock.start()
    time.sleep(seconds)
    clock.lap("rest")
