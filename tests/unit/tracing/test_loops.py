"""How long real loops take to answer."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from tracing_kit import SECOND

from profiling_middleware.tracing import loops as loops_module
from profiling_middleware.tracing.loops import Loops

NewLoop = Callable[[], asyncio.AbstractEventLoop]


class RunningLoop:
    """A loop in a thread of its own, with a task by which it is found."""

    def __init__(self, new_loop: NewLoop, deadline: float) -> None:
        self.loop = new_loop()
        self._deadline = deadline
        self._blocked, self._go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.settle()

    def _run(self) -> None:
        self.loop.run_until_complete(self._main())
        self.loop.close()

    async def _main(self) -> None:
        self._end = asyncio.Event()
        await self._end.wait()

    def settle(self) -> None:
        """All that was asked of it before has been done."""
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop).result(self._deadline)

    def block(self) -> None:
        """From now on it does nothing."""
        self._blocked.clear()
        self._go_on.clear()
        self.loop.call_soon_threadsafe(lambda: (self._blocked.set(), self._go_on.wait(self._deadline)))
        assert self._blocked.wait(self._deadline)

    def go_on(self) -> None:
        self._go_on.set()
        self.settle()

    def end(self) -> None:
        self._go_on.set()
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(lambda: self._end.set())
            self._thread.join(self._deadline)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def run_loop(deadline: float) -> Iterator[Callable[[NewLoop], RunningLoop]]:
    """Each has ended after the test."""
    running: list[RunningLoop] = []

    def run(new_loop: NewLoop) -> RunningLoop:
        running.append(RunningLoop(new_loop, deadline))
        return running[-1]

    yield run
    for each in running:
        each.end()


@pytest.fixture
def running(new_loop: NewLoop, run_loop: Callable[[NewLoop], RunningLoop]) -> RunningLoop:
    return run_loop(new_loop)


@pytest.fixture
def loops() -> Loops:
    """Nothing is left of other tests' loops."""
    gc.collect()
    return Loops()


def test_a_loop_that_answers_has_the_lag_of_its_last_answer(loops: Loops, running: RunningLoop) -> None:
    assert loops.lag_ns(time.monotonic_ns()) is None
    for _ in range(3):
        running.settle()
        loops.lag_ns(asked := time.monotonic_ns())
        running.settle()
        answered = time.monotonic_ns()
        lag = loops.lag_ns(time.monotonic_ns())
        assert lag is not None
        assert 0 < lag <= answered - asked


def test_a_loop_that_is_blocked_has_not_answered_until_now(loops: Loops, running: RunningLoop) -> None:
    running.block()
    asked = time.monotonic_ns()
    assert loops.lag_ns(asked) is None
    # Not asked again before it has answered.
    assert loops.lag_ns(asked + 5 * SECOND) == 5 * SECOND
    assert loops.lag_ns(asked + 7 * SECOND) == 7 * SECOND
    before = time.monotonic_ns()
    running.go_on()
    after = time.monotonic_ns()
    lag = loops.lag_ns(asked + 9 * SECOND)
    assert lag is not None
    assert before - asked <= lag <= after - asked


def test_the_slowest_of_several_loops_counts(
    loops: Loops, running: RunningLoop, run_loop: Callable[[NewLoop], RunningLoop]
) -> None:
    other = run_loop(asyncio.new_event_loop)
    other.block()
    asked = time.monotonic_ns()
    loops.lag_ns(asked)
    running.settle()
    assert loops.lag_ns(asked + SECOND) == SECOND
    other.end()
    running.settle()
    lag = loops.lag_ns(asked + 2 * SECOND)
    assert lag is not None
    assert lag < SECOND


def test_a_loop_that_does_not_run_has_no_lag(loops: Loops, new_loop: NewLoop) -> None:
    """Between two runs nobody waits for it."""
    loop = new_loop()
    event = asyncio.Event()
    task = loop.create_task(event.wait())
    now = time.monotonic_ns()
    assert [loops.lag_ns(now + seconds * SECOND) for seconds in range(3)] == [None] * 3

    async def runs() -> list[int | None]:
        lags = [loops.lag_ns(time.monotonic_ns())]
        await asyncio.sleep(0.001)
        return [*lags, loops.lag_ns(time.monotonic_ns())]

    first, lag = loop.run_until_complete(runs())
    assert first is None
    assert lag is not None
    assert lag < SECOND
    assert loops.lag_ns(now + 100 * SECOND) is None
    event.set()
    loop.run_until_complete(task)
    loop.close()


def test_closed_loops_are_forgotten_and_none_is_held(loops: Loops, deadline: float, new_loop: NewLoop) -> None:
    ended = RunningLoop(new_loop, deadline)
    loops.lag_ns(time.monotonic_ns())
    ended.settle()
    ended.end()
    assert loops.lag_ns(time.monotonic_ns()) is None
    assert loops._known == {}
    gone = weakref.ref(ended.loop)
    del ended
    gc.collect()
    assert gone() is None


def test_a_loop_that_is_closed_at_this_moment_is_no_problem(loops: Loops, running: RunningLoop) -> None:
    class Closing:
        """What it says of itself is true no more when it is asked."""

        def is_running(self) -> bool:
            return True

        def is_closed(self) -> bool:
            return False

        def call_soon_threadsafe(self, _: object) -> None:
            raise RuntimeError("Event loop is closed")

    closing: Any = Closing()
    loops._known[1] = loops_module._Asked(weakref.ref(closing))
    assert loops.lag_ns(time.monotonic_ns()) is None
    running.settle()
    assert loops.lag_ns(time.monotonic_ns()) is not None


def test_tasks_are_counted(loops: Loops) -> None:
    async def main() -> tuple[int, int]:
        before = loops.task_count()
        tasks = [asyncio.create_task(asyncio.sleep(60)) for _ in range(7)]
        after = loops.task_count()
        for task in tasks:
            task.cancel()
        return before, after

    before, after = asyncio.run(main())
    assert (before >= 1, after - before) == (True, 7)


def test_a_set_that_changes_is_gone_through_next_time(loops: Loops, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsteady(set[Any]):
        def __iter__(self) -> Iterator[Any]:
            raise RuntimeError("Set changed size during iteration")

    monkeypatch.setattr(loops_module, "_task_sets", lambda: [Unsteady({1})])
    assert loops.lag_ns(time.monotonic_ns()) is None
    assert loops.task_count() == 1


def test_without_asyncio_there_is_none(loops: Loops, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "asyncio.tasks")
    assert (loops.task_count(), loops.lag_ns(time.monotonic_ns())) == (0, None)


def test_clear_forgets_them_all(loops: Loops, running: RunningLoop) -> None:
    running.block()
    now = time.monotonic_ns()
    loops.lag_ns(now)
    assert loops.lag_ns(now + SECOND) == SECOND
    loops.clear()
    assert loops.lag_ns(now + 2 * SECOND) is None
    running.go_on()
