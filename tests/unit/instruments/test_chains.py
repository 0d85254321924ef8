"""Await chains, and who waits for whom through whatever lies between."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest

from profiling_middleware.instruments.chains import parents, running_frames, suspended_frames

Wait = Callable[["Coroutine[Any, Any, None]"], Awaitable[object]]


async def leaf(ready: asyncio.Event) -> None:
    ready.set()
    await asyncio.Event().wait()


async def middle(ready: asyncio.Event) -> None:
    await leaf(ready)


def names(task: asyncio.Task[Any]) -> list[str]:
    return [frame.f_code.co_name for frame in suspended_frames(task)]


def task_of(name: str) -> asyncio.Task[Any]:
    (task,) = (task for task in asyncio.all_tasks() if name in names(task))
    return task


def all_parents(wait: Wait) -> list[list[str]]:
    """The frames of each task above one that waits in `leaf`, which `wait` waits for in a task of its own."""

    async def waits_for_it(ready: asyncio.Event) -> None:
        await wait(middle(ready))

    async def main() -> list[list[str]]:
        ready = asyncio.Event()
        outer = asyncio.create_task(waits_for_it(ready))
        await ready.wait()
        await asyncio.sleep(0)
        found = [names(parent) for parent in parents(task_of("leaf"))]
        outer.cancel()
        await asyncio.gather(outer, return_exceptions=True)
        return found

    return asyncio.run(main())


async def by_task(coroutine: Coroutine[Any, Any, None]) -> None:
    await asyncio.create_task(coroutine)


async def by_group(coroutine: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(coroutine)


async def by_shield(coroutine: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(coroutine)
    try:
        await asyncio.shield(task)
    finally:
        task.cancel()


async def by_wait(coroutine: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(coroutine)
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()


async def by_wait_for_task(coroutine: Coroutine[Any, Any, None]) -> None:
    await asyncio.wait_for(asyncio.create_task(coroutine), 60)


async def by_anyio(coroutine: Coroutine[Any, Any, None]) -> None:
    async def run() -> None:
        await coroutine

    async with anyio.create_task_group() as group:
        group.start_soon(run)


async def by_gathers(coroutine: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(asyncio.gather(coroutine), asyncio.sleep(60))


@pytest.mark.parametrize(
    "wait", [by_task, asyncio.gather, by_gathers, by_group, by_shield, by_wait, by_wait_for_task, by_anyio]
)
def test_the_task_that_waits_is_found(wait: Wait) -> None:
    found = all_parents(wait)
    assert found
    assert "waits_for_it" in found[0]


def test_a_chain_is_leaf_first_and_whole() -> None:
    async def main() -> list[str]:
        ready = asyncio.Event()
        task = asyncio.create_task(middle(ready))
        await ready.wait()
        found = names(task)
        task.cancel()
        return found

    assert asyncio.run(main()) == ["wait", "leaf", "middle"]


def test_asynchronous_generators_and_awaitables_hide_nothing() -> None:
    class Later:
        def __init__(self, ready: asyncio.Event) -> None:
            self._ready = ready

        def __await__(self) -> Any:
            return middle(self._ready).__await__()

    async def numbers(ready: asyncio.Event) -> AsyncIterator[int]:
        await Later(ready)
        yield 1

    async def counts(ready: asyncio.Event) -> None:
        async for _ in numbers(ready):
            pass

    async def main() -> list[str]:
        ready = asyncio.Event()
        task = asyncio.create_task(counts(ready))
        await ready.wait()
        found = names(task)
        task.cancel()
        return found

    assert asyncio.run(main()) == ["wait", "leaf", "middle", "numbers", "counts"]


def test_a_task_that_nobody_waits_for_has_no_parent() -> None:
    async def main() -> list[Any]:
        ready = asyncio.Event()
        task = asyncio.create_task(middle(ready))
        task.add_done_callback(lambda _: None)
        await ready.wait()
        found = list(parents(task))
        task.cancel()
        return found

    assert asyncio.run(main()) == []


def test_tasks_that_wait_for_each_other_end_the_search() -> None:
    async def main() -> int:
        tasks: list[asyncio.Task[None]] = []

        async def wait_for(number: int) -> None:
            await asyncio.sleep(0)
            await asyncio.wait([tasks[number]])

        tasks += [asyncio.create_task(wait_for(1)), asyncio.create_task(wait_for(0))]
        for _ in range(5):
            await asyncio.sleep(0)
        count = len(list(parents(tasks[0])))
        for task in tasks:
            task.cancel()
        return count

    assert asyncio.run(main()) == 1


def test_what_runs_is_the_part_that_can_wait() -> None:
    async def inner() -> list[str]:
        return [frame.f_code.co_name for frame in running_frames(sys._getframe())]

    async def outer() -> list[str]:
        return await inner()

    assert asyncio.run(outer()) == ["inner", "outer"]
    assert running_frames(sys._getframe()) == []
