"""Calls of every shape, each family's where another's lay a moment ago."""

from __future__ import annotations

import asyncio
import itertools

from torture.families import Families
from torture.shared import spin
from torture.stage import Stage

_FAMILIES = 24
_numbers = itertools.count()


def calls(stage: Stage) -> None:  # called by run
    """Plain calls, generators, coroutines, classes, Python called from C; and recursion deeper than what is read."""
    random, families = stage.random(f"calls {next(_numbers)}"), Families.shared(stage.directory, _FAMILIES)
    while not stage.stopped.is_set():
        stage.breathe(random)
        families.call_some(random, 40)
        stage.done["calls of families"] += 40
        if random.random() < 0.02:
            deep(random.choice((400, 509, 511, 513, 700, 2000)))
            stage.done["deep recursions"] += 1


def deep(depth: int) -> int:
    """Deeper than the stacks that are read."""
    if depth:
        return deep(depth - 1) + 1
    return spin(5_000)


def tasks(stage: Stage) -> None:  # called by run
    """An event loop whose tasks wait, are cancelled, and hand over to threads."""
    asyncio.run(many(stage))


async def many(stage: Stage) -> None:  # called by the library
    random = stage.random(f"tasks {next(_numbers)}")
    while not stage.stopped.is_set():
        running = [asyncio.create_task(sleeper(random.randrange(4)), name="sleeper") for _ in range(20)]
        await asyncio.sleep(random.random() / 50)
        for task in random.sample(running, 8):
            task.cancel()
        running.append(asyncio.create_task(asyncio.to_thread(spin, 500)))
        await asyncio.gather(*running, return_exceptions=True)
        stage.done["tasks"] += len(running)


async def sleeper(depth: int) -> int:  # called by the library
    spin(100)
    if depth:
        return await sleeper(depth - 1)
    async with asyncio.timeout(0.005):
        await asyncio.sleep(0.02)
    return spin(100)
