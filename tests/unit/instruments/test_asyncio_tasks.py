"""Looking at tasks that loops go on to make and to end."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from profiling_middleware.instruments import asyncio_tasks
from profiling_middleware.instruments.asyncio_tasks import AsyncioTasks


class Unsteady(set[Any]):
    """A set that changes while it is gone through, so many times."""

    def __init__(self, entries: list[Any], changes: int) -> None:
        super().__init__(entries)
        self.changes = changes

    def __iter__(self) -> Iterator[Any]:
        self.changes -= 1
        if self.changes >= 0:
            raise RuntimeError("Set changed size during iteration")
        return super().__iter__()


async def sleeper() -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize(("changes", "found"), [(0, 5), (2, 5), (3, 0)])
def test_a_set_that_changes_is_gone_through_again_or_next_time(
    changes: int, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> int:
        tasks = [asyncio.create_task(sleeper()) for _ in range(5)]
        references = Unsteady([weakref.ref(task) for task in tasks], changes)
        monkeypatch.setattr(asyncio_tasks, "task_sets", lambda: [references])
        some, weight = AsyncioTasks()._some_tasks(7)
        assert weight == 1
        for task in tasks:
            task.cancel()
        return len(some)

    assert asyncio.run(main()) == found


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="collects between two byte codes only")
def test_tasks_are_read_while_nothing_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    read, collects = asyncio_tasks.suspended_frames, list[bool]()

    def noting(task: asyncio.Task[Any]) -> Any:
        collects.append(gc.get_threshold()[0] > 0)
        return read(task)

    async def main() -> None:
        task = asyncio.create_task(sleeper())
        await asyncio.sleep(0)
        instrument.look()
        task.cancel()

    monkeypatch.setattr(asyncio_tasks, "suspended_frames", noting)
    instrument = AsyncioTasks()
    instrument.attach(Hears())
    asyncio.run(main())
    instrument.close()
    assert set(collects) == {False}
    assert gc.get_threshold()[0] > 0


class Hears:
    wait_looks = 8.0

    def receive_contentions(self, contentions: object) -> None:
        """Nothing is done with them."""


def test_no_task_and_no_loop_is_kept() -> None:
    instrument = AsyncioTasks()
    hears = Hears()
    instrument.attach(hears)

    async def main() -> weakref.ref[Any]:
        task = asyncio.create_task(sleeper())
        await asyncio.sleep(0)
        for _ in range(4):
            instrument.look()
            await asyncio.sleep(0)
        task.cancel()
        return weakref.ref(task)

    gone = asyncio.run(main())
    for _ in range(2):
        instrument.look()
    gc.collect()
    assert gone() is None
    assert instrument._loops == {}
    instrument.detach(hears)
