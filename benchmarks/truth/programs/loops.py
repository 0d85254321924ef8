"""Three pure-Python functions whose CPU times are as 60 to 30 to 10."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.truth.clock import Clock
from benchmarks.truth.stage import Actor, Part, size_per_ms

_PROBE = 5_000


def prepare() -> Sequence[Actor]:
    """One actor; finds out first how fast this machine is."""
    wanted: tuple[tuple[Part, float], ...] = ((sixty, 6.0), (thirty, 3.0), (ten, 1.0))
    work = [(part, ms * size_per_ms(part, _PROBE)) for part, ms in wanted]
    return (lambda clock: _act(clock, work),)


def _act(clock: Clock, work: list[tuple[Part, float]]) -> None:
    while clock.running():
        clock.random.shuffle(work)
        for part, size in work:
            part(clock, int(clock.varied(size)))


def sixty(clock: Clock, size: int) -> None:
    clock.start()
    found = 0
    for number in range(size):
        found += number * 3 % 7
    clock.lap("sixty: for loop")
    squares = [number * number % 1001 for number in range(2 * size)]
    clock.lap("sixty: squares")
    text = [str(number) for number in squares]
    clock.lap("sixty: texts")
    del squares, text
    clock.lap("sixty: freeing")


def thirty(clock: Clock, size: int) -> None:
    clock.start()
    left, right = 0, 1
    while left < size:
        left, right = left + 1, right ^ left
    clock.lap("thirty: while loop")
    pairs = {number: number ^ 5 for number in range(size)}
    clock.lap("thirty: dictionary")
    del pairs
    clock.lap("thirty: freeing")


def ten(clock: Clock, size: int) -> None:
    clock.start()
    halves = [number // 2 if number % 2 else number for number in range(size)]
    clock.lap("ten: halves")
    del halves
    clock.lap("ten: freeing")
