"""Where coroutines wait, and who calls, as the extension reads it: what their frames say."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from profiling_middleware.instruments.chains import ChainReader, running_frames, suspended_frames


@pytest.fixture
def reader(need_native: Callable[[], None]) -> ChainReader:
    need_native()
    from profiling_middleware.sampling import _native

    return _native


@pytest.fixture
def suspended(need_native: Callable[[], None]) -> Callable[[object], tuple[int, ...] | None]:
    need_native()
    from profiling_middleware.sampling import _native

    return _native.suspended


async def sleeps_once() -> None:
    await asyncio.sleep(0)


async def leaf(future: asyncio.Future[None]) -> None:
    await future


async def middle(future: asyncio.Future[None]) -> None:
    await leaf(future)


@types.coroutine
def old_style(future: asyncio.Future[None]) -> Iterator[Any]:
    yield from future


async def over_a_generator(future: asyncio.Future[None]) -> None:
    await old_style(future)


async def of_a_task(future: asyncio.Future[None]) -> None:
    await asyncio.create_task(leaf(future))


async def gathers(future: asyncio.Future[None]) -> None:
    await asyncio.gather(middle(future), middle(future))


async def deep(future: asyncio.Future[None], depth: int = 100) -> None:
    await (deep(future, depth - 1) if depth else leaf(future))


async def too_deep(future: asyncio.Future[None]) -> None:
    await deep(future, 128)


async def _each(future: asyncio.Future[None]) -> AsyncIterator[int]:
    await future
    yield 1


async def over_an_asynchronous_generator(future: asyncio.Future[None]) -> None:
    async for _ in _each(future):
        pass


def ask(
    body: Callable[[asyncio.Future[None]], Coroutine[Any, Any, None]],
    suspended: Callable[[object], tuple[int, ...] | None],
) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """What is told of a task that waits there, and what its frames say."""

    async def main() -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(body(future))
        for _ in range(3):
            await asyncio.sleep(0)
        told = suspended(task.get_coro())
        real = tuple(number for frame in suspended_frames(task) for number in (id(frame.f_code), frame.f_lasti))
        future.set_result(None)
        await task
        return told, real

    return asyncio.run(main())


@pytest.mark.parametrize("body", [leaf, middle, over_a_generator, of_a_task, gathers, deep])
def test_it_is_told_as_its_frames_say(body: Any, suspended: Any) -> None:
    told, real = ask(body, suspended)
    assert told == real
    assert len(real) >= 2


@pytest.mark.parametrize("body", [over_an_asynchronous_generator, too_deep])
def test_what_is_not_understood_is_not_told(body: Any, suspended: Any) -> None:
    assert ask(body, suspended)[0] is None


def test_what_does_not_wait_is_not_told(suspended: Any) -> None:
    async def running() -> object:
        return suspended(task.get_coro())

    async def main() -> None:
        nonlocal task
        task = asyncio.create_task(running())
        assert await task is None

    task: Any = None
    asyncio.run(main())
    over = sleeps_once()
    over.close()
    assert [suspended(one) for one in (over, None, 1, leaf, iter(()))] == [None] * 5


def test_nothing_is_kept_by_it(suspended: Any) -> None:
    """As many references as before, whatever the chain ends in."""

    async def main(body: Any) -> None:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(body(future))
        await asyncio.sleep(0)
        coroutine = task.get_coro()
        before = [sys.getrefcount(one) for one in (coroutine, coroutine.cr_await, future, None)]
        for _ in range(1000):
            suspended(coroutine)
        after = [sys.getrefcount(one) for one in (coroutine, coroutine.cr_await, future, None)]
        assert max(abs(one - other) for one, other in zip(before, after, strict=True)) < 100
        future.set_result(None)
        await task

    for body in (middle, over_a_generator, over_an_asynchronous_generator, too_deep):
        asyncio.run(main(body))


def callers(leaf: types.FrameType) -> list[types.FrameType]:
    frames, frame = list[types.FrameType](), leaf
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return frames


def as_numbers(frames: list[types.FrameType]) -> tuple[int, ...]:
    return tuple(number for frame in frames for number in (id(frame.f_code), frame.f_lasti))


def look(reader: ChainReader) -> None:
    """Of its caller, whose place is the same for both."""
    leaf = sys._getframe(1)
    assert reader.running(leaf, False) == as_numbers(callers(leaf))
    assert reader.running(leaf, True) == as_numbers(running_frames(leaf))


def on_a_thread(work: Callable[[], None]) -> None:
    """Where the stack is not as deep as under a test runner."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def test_who_calls_is_told_as_frames_say(reader: ChainReader) -> None:
    def generator() -> Iterator[None]:
        look(reader)
        yield

    async def inner() -> None:
        await asyncio.sleep(0)
        look(reader)
        next(generator())
        assert sorted([1], key=lambda one: look(reader) or one) == [1]

    async def outer() -> None:
        await asyncio.gather(inner(), inner())
        await inner()

    def deeper(depth: int) -> None:
        deeper(depth - 1) if depth else look(reader)

    on_a_thread(lambda: look(reader))
    on_a_thread(lambda: deeper(100))
    on_a_thread(lambda: asyncio.run(outer()))


def test_of_calls_that_are_too_deep_nothing_is_told(reader: ChainReader) -> None:
    def deeper(depth: int) -> tuple[int, ...] | None:
        return deeper(depth - 1) if depth else reader.running(sys._getframe(), False)

    def work() -> None:
        assert deeper(100) is not None
        assert deeper(200) is None

    on_a_thread(work)


def test_of_a_frame_that_is_over_itself_is_told(reader: ChainReader) -> None:
    def over() -> types.FrameType:
        return sys._getframe()

    frame = over()
    assert reader.running(frame, False) == (id(frame.f_code), frame.f_lasti)


@pytest.mark.parametrize("other", [None, 1, look, types.SimpleNamespace(f_back=None)])
def test_what_is_no_frame_is_refused(reader: ChainReader, other: Any) -> None:
    with pytest.raises(TypeError, match=r"running\(\) takes a frame"):
        reader.running(other, False)
