"""Four threads that always have work and one GIL: who works in long C calls gets more of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.truth.clock import Clock
from benchmarks.truth.stage import Actor, Part, size_per_ms

_NUMBERS: list[float] = []
_LONGEST_PROBE = 20_000


def prepare() -> Sequence[Actor]:
    """Four actors. Python code gives the GIL away after 5 ms, a call in C only when it returns."""
    generator = random.Random(0)
    _NUMBERS[:] = [generator.random() for _ in range(400_000)]
    return (
        _worker(first, 8.0, 10_000),
        _worker(second, 8.0, 10_000),
        _worker(sort_some, 12.0, _LONGEST_PROBE),
        _worker(sort_many, 25.0, _LONGEST_PROBE),
    )


def _worker(part: Part, milliseconds: float, probe: int) -> Actor:
    size = milliseconds * size_per_ms(part, probe)

    def act(clock: Clock) -> None:
        while clock.running():
            part(clock, int(clock.varied(size)))

    return act


def first(clock: Clock, size: int) -> None:
    clock.start()
    found = 0
    for number in range(size):
        found += number % 7
    clock.lap("first")


def second(clock: Clock, size: int) -> None:
    clock.start()
    found = 0
    for number in range(size):
        found ^= number * 3
    clock.lap("second")


def sort_some(clock: Clock, size: int) -> None:
    clock.start()
    sorted(_NUMBERS[:size])
    clock.lap("sort some")


def sort_many(clock: Clock, size: int) -> None:
    clock.start()
    sorted(_NUMBERS[:size])
    clock.lap("sort many")
