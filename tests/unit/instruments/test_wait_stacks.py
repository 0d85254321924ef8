"""Stacks of who waits and who releases: the same with the extension and without, and read frame by frame once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from profiling_middleware.instruments import wait_stacks
from profiling_middleware.instruments.chains import ChainReader, parents
from profiling_middleware.instruments.wait_stacks import WaitStacks
from profiling_middleware.model import Stack
from profiling_middleware.stacks import StackTable


@pytest.fixture
def reader(need_native: Callable[[], None]) -> ChainReader:
    need_native()
    from profiling_middleware.sampling import _native

    return _native


def takes(stacks: WaitStacks, depth: int) -> list[Stack]:
    if depth:
        return takes(stacks, depth - 1)
    here = sys._getframe()
    # One line, as the line is part of what is compared.
    return [stacks.of_thread(here) for _ in range(3)]


async def waits(stacks: WaitStacks) -> list[Stack]:
    here, task = sys._getframe(), asyncio.current_task()
    assert task is not None
    return [stacks.of_task(here, tuple(parents(task))) for _ in range(3)]


async def gathers(stacks: WaitStacks) -> list[Stack]:
    await asyncio.sleep(0)
    return (await asyncio.gather(waits(stacks), asyncio.sleep(0)))[0]


def frames_of(stacks: list[Stack]) -> tuple[Any, ...]:
    assert stacks[0] is stacks[1] is stacks[2]
    return stacks[0].frames


def test_a_threads_stack_is_the_same_with_the_extension(reader: ChainReader) -> None:
    for depth in (1, 300):  # one that it says nothing of, too
        with_it, without = (frames_of(takes(stacks, depth)) for stacks in (WaitStacks(reader), WaitStacks()))
        assert with_it == without
        assert with_it[0].function.endswith("takes")
        assert len(with_it) > depth


def test_a_tasks_stack_goes_on_with_those_who_wait_for_it(reader: ChainReader) -> None:
    with_it, without = (frames_of(asyncio.run(gathers(stacks))) for stacks in (WaitStacks(reader), WaitStacks()))
    assert with_it == without
    assert [frame.function.rpartition(".")[2] for frame in with_it] == ["waits", "gathers"]


def test_with_the_extension_frames_are_read_once(reader: ChainReader, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noting(function: Any, name: str) -> Any:
        return lambda *arguments: read.append(name) or function(*arguments)

    monkeypatch.setattr(StackTable, "take", noting(StackTable.take, "take"))
    monkeypatch.setattr(wait_stacks, "running_frames", noting(wait_stacks.running_frames, "running"))
    monkeypatch.setattr(wait_stacks, "suspended_frames", noting(wait_stacks.suspended_frames, "suspended"))
    stacks = WaitStacks(reader)
    takes(stacks, 3)
    assert read == ["take"]
    asyncio.run(gathers(stacks))
    assert read == ["take", "running", "suspended"]

    stacks.clear()
    takes(stacks, 3)
    assert read == ["take", "running", "suspended", "take"]
