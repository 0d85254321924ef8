"""Work in executors' threads, by real executors."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import contextvars
import functools
import inspect
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from tracing_kit import MS, routed, spin, taken

from profiling_middleware.tracing.buffer import TraceBuffer
from profiling_middleware.tracing.executors import ExecutorWork
from profiling_middleware.tracing.requests import RequestSpans

WORK_ITEM: Any = concurrent.futures.thread._WorkItem
ORIGINALS = WORK_ITEM.__init__, WORK_ITEM.run, anyio.to_thread.run_sync


def present() -> tuple[Any, Any, Any]:
    return WORK_ITEM.__init__, WORK_ITEM.run, anyio.to_thread.run_sync


@pytest.fixture
def work() -> Iterator[ExecutorWork]:
    work = ExecutorWork()
    yield work
    work.stop()
    assert present() == ORIGINALS


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def ident() -> int:
    return threading.get_native_id()


# -- concurrent.futures ----------------------------------------------------------------------------------------------


def test_how_long_it_was_queued_and_how_long_it_took(
    work: ExecutorWork, buffer: TraceBuffer, executor: ThreadPoolExecutor, deadline: float
) -> None:
    """The second one waits until the first one has been let go."""
    go_on, begun = threading.Event(), threading.Event()
    readings: dict[str, int] = {}

    def first() -> None:
        begun.set()
        assert go_on.wait(deadline)

    def second() -> tuple[int, int, int]:
        return threading.get_native_id(), *spin(5 * MS)

    work.start(buffer, full=True)
    executor.submit(first)
    assert begun.wait(deadline)
    readings["before"] = time.monotonic_ns()
    future = executor.submit(second)
    readings["queued"] = time.monotonic_ns()
    spin(5 * MS)
    readings["free"] = time.monotonic_ns()
    go_on.set()
    thread, began, ended = future.result(deadline)
    executor.shutdown()
    readings["done"] = time.monotonic_ns()

    one, other = taken(buffer)
    assert (one.name.rsplit(".")[-1], other.name.rsplit(".")[-1]) == ("first", "second")
    assert one.tid == other.tid == thread
    assert readings["before"] <= other.queued_ns <= readings["queued"]
    assert readings["free"] <= one.ended_ns <= other.began_ns <= began
    assert ended <= other.ended_ns <= readings["done"]
    assert other.began_ns - other.queued_ns >= 5 * MS
    assert other.ended_ns - other.began_ns >= 5 * MS


def test_what_is_short_and_does_not_wait_is_told_in_full_only(
    work: ExecutorWork, buffer: TraceBuffer, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    """Told is what took a millisecond, or was queued as long."""
    for full, told in ((False, 0), (True, 1), (False, 0)):
        monkeypatch.setattr("profiling_middleware.tracing.executors._LEAST_NS", 10**15)
        work.start(buffer, full=full)
        with ThreadPoolExecutor(1) as executor:
            executor.submit(ident)
        assert len(taken(buffer)) == told
    monkeypatch.undo()
    work.start(buffer, full=False)
    begun, go_on = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(lambda: (begun.set(), go_on.wait(deadline)))
        assert begun.wait(deadline)
        executor.submit(ident)
        spin(2 * MS)
        go_on.set()
    assert [event.name.rsplit(".")[-1] for event in taken(buffer)] == ["<lambda>", "ident"]


class Job:
    def __call__(self) -> None:
        pass

    def method(self) -> None:
        pass


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (ident, "ident"),
        (functools.partial(ident), "ident"),
        (functools.partial(functools.partial(functools.partial(spin), 1)), "spin"),
        (functools.partial(contextvars.copy_context().run, ident), "ident"),
        (functools.partial(contextvars.copy_context().run, functools.partial(spin, 1)), "spin"),
        (functools.partial(functools.partial(contextvars.Context().run, spin), 1), "spin"),
        (Job(), "Job"),
        (Job().method, "Job.method"),
        (time.monotonic, "monotonic"),
        (type, "type"),
    ],
)
def test_work_is_called_by_what_is_called_in_the_end(
    function: Callable[[], object],
    name: str,
    work: ExecutorWork,
    buffer: TraceBuffer,
    executor: ThreadPoolExecutor,
) -> None:
    work.start(buffer, full=True)
    executor.submit(function)
    executor.shutdown()
    assert [event.name for event in taken(buffer)] == [name]


def test_asyncio_and_its_threads(work: ExecutorWork, buffer: TraceBuffer) -> None:
    spans = RequestSpans()

    async def main() -> None:
        token = spans.enter(spans.begin(routed, {}))
        assert await asyncio.to_thread(spin, MS)
        # The context does not go with it, but is asked when it is queued.
        await asyncio.get_running_loop().run_in_executor(None, ident)
        token.var.reset(token)
        await asyncio.to_thread(ident)

    work.start(buffer, full=True)
    asyncio.run(main())
    # Somebody may have gone on before it was told.
    assert sorted((event.name, event.request) for event in taken(buffer)) == [("ident", 0), ("ident", 1), ("spin", 1)]


def test_executors_go_on_as_ever(work: ExecutorWork, buffer: TraceBuffer, deadline: float) -> None:
    def fails() -> None:
        raise LookupError("its own")

    def untold() -> Future[Any]:
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(fails)

    def trace(future: Future[Any]) -> list[str]:
        error = future.exception(deadline)
        assert error is not None
        assert (type(error), str(error), error.__context__) == (LookupError, "its own", None)
        return traceback.format_tb(error.__traceback__)

    expected = trace(untold())
    work.start(buffer, full=True)
    assert trace(untold()) == expected
    with ThreadPoolExecutor(3, initializer=ident) as executor:
        assert list(executor.map(pow, range(9), [2] * 9)) == [number**2 for number in range(9)]
        keywords = executor.submit(dict, one=1, self=2, fn=3)
        assert keywords.result(deadline) == {"one": 1, "self": 2, "fn": 3}
    assert sorted(event.name for event in taken(buffer)) == sorted([fails.__qualname__, *["pow"] * 9, "dict"])


def test_what_is_cancelled_is_not_done(work: ExecutorWork, buffer: TraceBuffer, deadline: float) -> None:
    go_on, begun, done = threading.Event(), threading.Event(), []
    work.start(buffer, full=True)
    with ThreadPoolExecutor(1) as executor:
        executor.submit(lambda: (begun.set(), go_on.wait(deadline)))
        assert begun.wait(deadline)
        future = executor.submit(done.append, 1)
        assert future.cancel()
        go_on.set()
    assert future.cancelled()
    assert done == []


def test_all_is_put_back_and_nothing_more_is_told(
    work: ExecutorWork, buffer: TraceBuffer, executor: ThreadPoolExecutor, deadline: float
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    for _ in range(2):
        begun.clear()
        go_on.clear()
        work.start(buffer, full=True)
        work.start(buffer, full=False)
        work.start(buffer, full=True)
        assert all(one is not other for one, other in zip(present(), ORIGINALS, strict=True))
        executor.submit(lambda: (begun.set(), go_on.wait(deadline)))
        queued = executor.submit(ident)
        assert begun.wait(deadline)
        work.stop()
        work.stop()
        assert present() == ORIGINALS
        # What it has begun to measure ends as ever, untold.
        go_on.set()
        assert isinstance(queued.result(deadline), int)
        executor.submit(ident).result(deadline)
        assert taken(buffer) == []


def test_what_was_queued_before_is_not_told(
    work: ExecutorWork, buffer: TraceBuffer, executor: ThreadPoolExecutor, deadline: float
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    executor.submit(lambda: (begun.set(), go_on.wait(deadline)))
    queued = executor.submit(ident)
    assert begun.wait(deadline)
    work.start(buffer, full=True)
    go_on.set()
    assert isinstance(queued.result(deadline), int)
    executor.submit(spin, 1)
    executor.shutdown()
    assert [event.name for event in taken(buffer)] == ["spin"]


def test_they_look_like_the_originals(work: ExecutorWork, buffer: TraceBuffer) -> None:
    work.start(buffer, full=True)
    for ours, original in zip(present(), ORIGINALS, strict=True):
        assert ours is not original
        assert ours.__name__ == original.__name__
        assert inspect.signature(ours) == inspect.signature(original)


@pytest.mark.parametrize("again", [False, True])
def test_what_others_have_put_there_meanwhile_stays(
    again: bool, work: ExecutorWork, buffer: TraceBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs call ours, and ours the originals, untold; when it starts again all is told once."""
    calls = []
    work.start(buffer, full=True)
    ours = present()

    def theirs(number: int) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            calls.append(number)
            return ours[number](*arguments, **named)

        return call

    replaced = [theirs(number) for number in range(3)]
    monkeypatch.setattr(WORK_ITEM, "__init__", replaced[0])
    monkeypatch.setattr(WORK_ITEM, "run", replaced[1])
    monkeypatch.setattr(anyio.to_thread, "run_sync", replaced[2])
    work.stop()
    assert present() == tuple(replaced)
    if again:
        work.start(buffer, full=True)
    with ThreadPoolExecutor(1) as executor:
        executor.submit(spin, MS)
    anyio.run(run_in_threadpool, spin, MS)
    assert sorted(calls) == [0, 1, 2]
    assert [event.name for event in taken(buffer)] == ["spin", "spin"] * again
    assert buffer.dropped == 0
    work.stop()
    assert present() == tuple(replaced)
    monkeypatch.undo()
    WORK_ITEM.__init__, WORK_ITEM.run, anyio.to_thread.run_sync = ORIGINALS


def test_a_service_without_executors_is_not_made_to_load_them(buffer: TraceBuffer, run_python: Any) -> None:
    ran = run_python(
        """
import sys
from profiling_middleware.tracing.buffer import TraceBuffer, events_of
from profiling_middleware.tracing.executors import ExecutorWork
for name in ("concurrent.futures.thread", "anyio.to_thread"):
    sys.modules.pop(name, None)
buffer, work = TraceBuffer(), ExecutorWork()
work.start(buffer, full=True)
assert "concurrent.futures.thread" not in sys.modules and "anyio.to_thread" not in sys.modules
from concurrent.futures.thread import ThreadPoolExecutor
work.start(buffer, full=True)
with ThreadPoolExecutor(1) as executor:
    executor.submit(print, "worked")
print([event.name for event in events_of(buffer.fetch())])
work.stop()
"""
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("worked\n['print']\n", "", 0)
    assert sys.modules["concurrent.futures.thread"] is concurrent.futures.thread


# -- anyio -----------------------------------------------------------------------------------------------------------


def endpoint(number: int) -> tuple[int, int]:
    """As Starlette calls one that is no coroutine."""
    return spin(number)


def test_anyios_threads_are_measured_in_full(work: ExecutorWork, buffer: TraceBuffer) -> None:
    spans, readings = RequestSpans(), []

    async def main() -> None:
        spans.enter(spans.begin(routed, {}))
        readings.append(time.monotonic_ns())
        readings.extend(await run_in_threadpool(endpoint, number=MS))
        readings.append(time.monotonic_ns())
        limiter = anyio.CapacityLimiter(1)
        assert await anyio.to_thread.run_sync(ident, abandon_on_cancel=True, limiter=limiter) != ident()

    work.start(buffer, full=True)
    anyio.run(main)
    one, other = taken(buffer)
    assert (one.name, one.request, other.name, other.request) == ("endpoint", 1, "ident", 1)
    times = [readings[0], one.queued_ns, one.began_ns, readings[1], readings[2], one.ended_ns, readings[3]]
    assert times == sorted(times)
    assert one.tid not in (0, ident())


def test_anyios_function_is_still_a_coroutine_function(work: ExecutorWork, buffer: TraceBuffer) -> None:
    """Starlette's BackgroundTask calls what is none in a thread, and awaits nothing."""
    work.start(buffer, full=True)
    assert anyio.to_thread.run_sync is not ORIGINALS[2]
    assert inspect.iscoroutinefunction(anyio.to_thread.run_sync)
    ran: list[int] = []
    anyio.run(BackgroundTask(anyio.to_thread.run_sync, ran.append, 1))
    assert ran == [1]


def test_how_long_anyios_threads_were_waited_for(work: ExecutorWork, buffer: TraceBuffer) -> None:
    async def main() -> None:
        limiter = anyio.CapacityLimiter(1)
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(functools.partial(anyio.to_thread.run_sync, spin, 5 * MS, limiter=limiter))

    work.start(buffer, full=True)
    anyio.run(main)
    one, other = sorted(taken(buffer), key=lambda event: event.began_ns)
    assert other.queued_ns < one.ended_ns <= other.began_ns
    assert other.began_ns - other.queued_ns >= 5 * MS


def test_anyio_is_left_alone_else(work: ExecutorWork, buffer: TraceBuffer) -> None:
    def fails() -> None:
        raise LookupError

    async def main() -> list[str]:
        await anyio.to_thread.run_sync(spin, 2 * MS)
        with pytest.raises(LookupError) as failed:
            await anyio.to_thread.run_sync(fails)
        return traceback.format_tb(failed.tb)

    expected = anyio.run(main)
    work.start(buffer, full=False)
    assert anyio.to_thread.run_sync is ORIGINALS[2]
    work.start(buffer, full=True)
    anyio.run(main)
    assert [event.name.rsplit(".")[-1] for event in taken(buffer)] == ["spin", "fails"]
    work.start(buffer, full=False)
    assert anyio.to_thread.run_sync is ORIGINALS[2]
    assert anyio.run(main) == expected
    assert taken(buffer) == []
