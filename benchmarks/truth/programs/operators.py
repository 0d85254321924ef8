"""Lines of nothing but operators on long numbers: no call, no loop, so a thread lets go of the GIL on none of them.

A sampler that needs the GIL sees this thread only at the lines between, where the clock is read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.truth.clock import Clock
from benchmarks.truth.stage import Actor, size_per_ms

_ROUND_MS = 4.0
_PROBE = 2_000


def prepare() -> Sequence[Actor]:
    """One actor; finds out first how long numbers may be here."""
    # A product of long numbers takes more than twice as long for twice the length: approached in two steps.
    size = float(_PROBE)
    for _ in range(3):
        size *= (_ROUND_MS * size_per_ms(_with_numbers, int(size)) / size) ** 0.6
    return (lambda clock: _act(clock, size),)


def _act(clock: Clock, size: float) -> None:
    while clock.running():
        _with_numbers(clock, int(clock.varied(size)))


def _with_numbers(clock: Clock, size: int) -> None:
    """`size` is the length of the numbers, in 32-bit words."""
    lines(clock, random.getrandbits(32 * size), random.getrandbits(32 * size), 16 * size)


def lines(clock: Clock, one: int, other: int, half: int) -> None:
    clock.start()
    a = one * other * one
    clock.lap("two products")
    b = one * other
    clock.lap("one product")
    c = one * one
    clock.lap("a square")
    d = one // (other >> half)
    clock.lap("a quotient")
    del a, b, c, d
    clock.lap("freeing")
