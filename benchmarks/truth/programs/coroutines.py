"""Three kinds of asyncio task on one loop, their CPU times as 5 to 3 to 2."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from benchmarks.truth.clock import Clock
from benchmarks.truth.stage import Actor, Part, size_per_ms

Task = Callable[[Clock, float], Coroutine[None, None, None]]

_TASKS_EACH = 3
_PAUSE_SECONDS = 0.004
_PROBE = 50_000


def prepare() -> Sequence[Actor]:
    """One actor, which runs the loop."""
    wanted: tuple[tuple[Task, float], ...] = ((five, 5.0), (three, 3.0), (two, 2.0))
    work = [(task, ms * size_per_ms(_once(task), _PROBE)) for task, ms in wanted]
    return (lambda clock: asyncio.run(_run(clock, work)),)


def _once(task: Task) -> Part:
    return lambda clock, size: asyncio.run(task(clock, size))


async def _run(clock: Clock, work: Sequence[tuple[Task, float]]) -> None:
    async with asyncio.TaskGroup() as group:
        for task, size in work:
            for _ in range(_TASKS_EACH):
                group.create_task(_repeat(clock, task, size))


async def _repeat(clock: Clock, task: Task, size: float) -> None:
    while clock.running():
        await task(clock, clock.varied(size))
        await asyncio.sleep(clock.varied(_PAUSE_SECONDS))


async def five(clock: Clock, size: float) -> None:
    clock.start()
    found = 0
    for number in range(int(size)):
        found += number % 7
    clock.lap("five")


async def three(clock: Clock, size: float) -> None:
    clock.start()
    found = 0
    for number in range(int(size)):
        found ^= number * 3
    clock.lap("three")


async def two(clock: Clock, size: float) -> None:
    clock.start()
    found = 0
    for number in range(int(size)):
        found -= number // 3
    clock.lap("two")
