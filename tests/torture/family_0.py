"""One family of functions. `families.py` makes many of this file, each with a number for its 0 and with other lines.

Their frames are equally large, so one family's lie where another's lay a moment ago. The members of one never call those
of another, and who calls whom stands in the line: a name, or a comment. That is how a stack that is made of two moments is
noticed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from types import TracebackType
from typing import Any

from torture.shared import middle, spin

TURNS = 30


class Pause0:
    def __await__(self) -> Generator[None]:
        yield


class Thing0:
    """A class whose instances are made, called, compared, entered and looked at."""

    def __init__(self, size: int) -> None:
        self.size = size
        spin(TURNS)

    def __call__(self, more: int) -> int:
        return self.grown_0(more) + spin(TURNS)

    def __lt__(self, other: Thing0) -> bool:
        spin(3)
        return self.size < other.size

    def __enter__(self) -> Thing0:
        spin(TURNS)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        spin(TURNS)
        return True

    @property
    def double_0(self) -> int:
        return self.grown_0(self.size)

    def grown_0(self, more: int) -> int:
        return self.size + more + middle(self.idle_0)

    def idle_0(self) -> int:  # called by middle
        return spin(TURNS)


def chain_0() -> int:
    return one_0() + spin(3) + one_0()


def one_0() -> int:
    return middle(two_0)


def two_0() -> int:  # called by middle
    return three_0(spin(TURNS))


def three_0(value: int) -> int:
    return value + four_0(value, number=3)


def four_0(*values: int, number: int = 1, **named: int) -> int:
    return sum(values) + number + middle(five_0) + len(named)


def five_0() -> int:  # called by middle
    return spin(TURNS)


def deep_0(depth: int) -> int:
    if depth:
        return deep_0(depth - 1) + 1
    return spin(TURNS)


def closure_0() -> int:
    number = 1

    def add_0() -> int:  # called by middle
        nonlocal number
        number += spin(TURNS)
        return number

    return add_0() + middle(add_0) + (lambda: spin(TURNS) + number)()


def count_0(end: int) -> Iterator[int]:
    try:
        for number in range(end):
            spin(3)
            yield number
    finally:
        clean_0()


def outer_0(end: int) -> Generator[int]:
    yield from count_0(end)
    yield from (number + spin(3) for number in range(end))


def clean_0() -> int:
    return spin(TURNS)


def generators_0() -> int:
    numbers, others = outer_0(3), outer_0(2)
    total = next(numbers) + next(others)  # outer_0
    total += resume_0(numbers)
    others.close()  # outer_0, count_0
    total += resume_0(numbers) + sum(count_0(5))
    numbers.close()  # outer_0, count_0
    for number in outer_0(4):
        if number == 2:
            break  # outer_0, count_0
    return total + sum(spin(2) + number for number in outer_0(2))


def resume_0(numbers: Generator[int]) -> int:
    return next(numbers) + spin(3)  # outer_0


async def inner_0() -> int:
    spin(TURNS)
    await Pause0()  # __await__
    return middle(five_0)


async def between_0() -> int:
    return await inner_0() + spin(3)


async def around_0() -> int:
    try:
        return await between_0() + await between_0()
    finally:
        clean_0()


async def stream_0() -> AsyncIterator[int]:
    for number in range(3):
        spin(3)
        await Pause0()  # __await__
        yield number


async def read_0() -> int:
    return sum([number + spin(3) async for number in stream_0()])  # __await__


def coroutines_0() -> None:
    drive_0(around_0(), 10)  # all of it
    drive_0(around_0(), 1)
    drive_0(read_0(), 10)
    left = read_0()
    left.send(None)  # read_0
    other = between_0()
    other.send(None)  # between_0
    left.close()  # read_0, listcomp, stream_0, __await__
    throw_0(other)


def drive_0(coroutine: Coroutine[Any, Any, Any], steps: int) -> None:
    try:
        for _ in range(steps):
            coroutine.send(None)  # around_0, read_0
    except StopIteration:
        return
    coroutine.close()  # around_0, between_0, inner_0, __await__


def throw_0(coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        coroutine.throw(KeyError())  # between_0
    except KeyError:
        spin(TURNS)


def called_by_c_0() -> int:
    values = sorted(range(6), key=key_0)
    text = re.sub(r"\d", replaced_0, "1-2-3")
    total = functools.reduce(added_0, map(key_0, values))
    least = min(Thing0(number) for number in values)  # Thing0, __lt__
    return total + len(text) + least.size


def key_0(value: int) -> int:
    return -value + spin(3)


def replaced_0(match: re.Match[str]) -> str:  # called by the library
    return match[0] + str(spin(3))


def added_0(one: int, other: int) -> int:
    return one + other + spin(3)


def things_0() -> int:
    things = [Thing0(size) for size in range(3)]
    with things[0] as thing:  # __enter__, __exit__
        fails_0(thing)
    return things[1](2) + things[2].double_0  # __call__


def fails_0(thing: Thing0) -> None:
    try:
        raises_0(thing.size)
    except ValueError as error:
        raise LookupError(spin(3)) from error


def raises_0(size: int) -> None:
    middle(functools.partial(raise_0, size))


def raise_0(size: int) -> None:  # called by middle
    raise ValueError(spin(TURNS), size)


def deeply_0() -> int:
    return deep_0(25)


MEMBERS_0: tuple[Callable[[], object], ...] = (
    chain_0,
    deeply_0,
    closure_0,
    generators_0,
    coroutines_0,
    called_by_c_0,
    things_0,
)
"""Called by the family's dispatcher."""
