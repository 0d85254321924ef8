"""Looking at tasks that loops go on to make and to end."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from profiling_middleware.instruments import asyncio_tasks
from profiling_middleware.instruments.asyncio_tasks import AsyncioTasks
from profiling_middleware.model import Contention


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


class Chains:
    """What the extension tells of coroutines, as Python sees it."""

    def __init__(self) -> None:
        self.asked = 0

    def running(self, leaf: Any, of_task: bool) -> tuple[int, ...] | None:
        raise AssertionError("nobody runs who is looked at")

    def suspended(self, step: Any) -> tuple[int, ...]:
        self.asked += 1
        frames = []
        while hasattr(step, "cr_frame"):
            frames.append(step.cr_frame)
            step = step.cr_await
        return tuple(number for frame in reversed(frames) for number in (id(frame.f_code), frame.f_lasti))


async def waits_for(task: asyncio.Task[Any]) -> None:
    await task


def test_what_has_been_read_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is the same stack."""
    read = each_walk_takes(0, monkeypatch)
    chains, hears, counts = Chains(), Hears(20.0), list[int]()
    instrument = AsyncioTasks(reader=chains)

    async def main() -> None:
        tasks = [asyncio.create_task(sleeper()) for _ in range(3)]
        tasks.append(asyncio.create_task(waits_for(tasks[0])))
        let_there_be_only(tasks, monkeypatch)
        await asyncio.sleep(0)
        for _ in range(2):
            instrument.look()
            instrument.look()
            counts.append(len(read))
            read.clear()
        for task in tasks:
            task.cancel()

    instrument.attach(hears)
    asyncio.run(main())
    instrument.close()
    assert counts[0] > 0
    assert counts[1] == 0
    stacks = [one.stack for one in hears.heard]
    assert len(stacks) == 2 * 4
    assert len(set(map(id, stacks))) == len({stack.frames for stack in stacks}) == 3


def test_what_waits_where_it_is_measured_is_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def measured() -> None:
        await asyncio.sleep(60)

    hears, instrument = Hears(20.0), AsyncioTasks(measuring=measured.__code__, reader=Chains())

    async def main() -> None:
        task = asyncio.create_task(measured())
        let_there_be_only([task], monkeypatch)
        await asyncio.sleep(0)
        for _ in range(4):
            instrument.look()
        task.cancel()

    instrument.attach(hears)
    asyncio.run(main())
    instrument.close()
    assert hears.heard == []


def let_there_be_only(tasks: Sequence[asyncio.Task[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of tests before this one that have not been collected are among all that asyncio knows."""
    references = {weakref.ref(task) for task in tasks}
    monkeypatch.setattr(asyncio_tasks, "task_sets", lambda: [references])


def each_walk_takes(walk_ns: int, monkeypatch: pytest.MonkeyPatch) -> set[asyncio.Task[Any]]:
    """Of the thread's CPU time, which stands still otherwise. Returns the tasks that will have been walked."""
    now_ns, walked, read = 0, set[asyncio.Task[Any]](), asyncio_tasks.suspended_frames

    def suspended_frames(task: asyncio.Task[Any]) -> Any:
        nonlocal now_ns
        now_ns += walk_ns
        walked.add(task)
        return read(task)

    monkeypatch.setattr(asyncio_tasks, "suspended_frames", suspended_frames)
    monkeypatch.setattr(asyncio_tasks.time, "thread_time_ns", lambda: now_ns)
    return walked


@pytest.mark.parametrize(("walk_ns", "walked"), [(0, 16), (15_000, 16), (100_000, 4), (1_000_000, 1)])
def test_a_walk_that_takes_too_long_ends_and_those_walked_stand_for_all(
    walk_ns: int, walked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(sleeper()) for _ in range(16)]
        let_there_be_only(tasks, monkeypatch)
        await asyncio.sleep(0)
        instrument.look()
        for task in tasks:
            task.cancel()

    each_walk_takes(walk_ns, monkeypatch)
    hears, instrument = Hears(20.0), AsyncioTasks()
    instrument.attach(hears)
    asyncio.run(main())
    instrument.close()
    assert len(hears.heard) == walked
    assert sum(one.times for one in hears.heard) == pytest.approx(16)


def test_who_is_left_out_of_a_walk_is_any_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        tasks = [asyncio.create_task(sleeper()) for _ in range(15)]
        let_there_be_only(tasks, monkeypatch)
        await asyncio.sleep(0)
        for _ in range(300):
            instrument.look()
        for task in tasks:
            task.cancel()
        return len(seen & set(tasks))

    seen = each_walk_takes(200_000, monkeypatch)
    hears, instrument = Hears(20.0), AsyncioTasks()
    instrument.attach(hears)
    assert asyncio.run(main()) == 15
    instrument.close()


@pytest.mark.parametrize(("look_ns", "seconds"), [(100_000, 0.2), (1_600_000, 0.4), (40_000_000, 0.8)])
def test_looks_become_rarer_when_they_would_cost_more_than_allowed(
    look_ns: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    used_ns = [0]

    def some_tasks(self: AsyncioTasks, count: int) -> Any:
        used_ns[0] += look_ns
        return [], 0.0

    monkeypatch.setattr(AsyncioTasks, "_some_tasks", some_tasks)
    monkeypatch.setattr(asyncio_tasks.time, "thread_time_ns", lambda: used_ns[0])
    hears, instrument = Hears(20.0), AsyncioTasks()
    instrument.attach(hears)
    pauses = [instrument.look() or 0.0 for _ in range(2_000)][200:]
    instrument.close()
    assert sum(pauses) / (len(pauses) / 2) == pytest.approx(seconds, rel=0.1)


class Hears:
    def __init__(self, wait_looks: float = 8.0) -> None:
        self.wait_looks = wait_looks
        self.heard: list[Contention] = []

    def receive_contentions(self, contentions: Sequence[Contention]) -> None:
        self.heard += contentions


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
