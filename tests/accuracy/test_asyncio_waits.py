"""Waits of asyncio's tasks: for its locks by their own clocks, for anything else by looks."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from waits_kit import delay

from profiling_middleware.captures.collector import Collected, Collector
from profiling_middleware.instruments import Instrument
from profiling_middleware.instruments.made import make_instruments
from profiling_middleware.sampling.engine import EngineReport

HOLD, ROUNDS, TASKS = 0.02, 10, 4
DEADLINE = 60.0


class Waited:
    def __init__(self) -> None:
        self.ns = 0

    def add(self, began: int) -> None:
        self.ns += time.monotonic_ns() - began


Factory = Callable[[], asyncio.AbstractEventLoop]
LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


def collect(main: Callable[[], Coroutine[Any, Any, object]], factory: Factory = asyncio.new_event_loop) -> Collected:
    """What is collected while this runs, in a loop on this thread, looked at from another one."""
    # Ended tasks of other tests would be among those that are looked at, so that each stood for many.
    gc.collect()
    collector, instruments, done = Collector(20.0, EngineReport()), make_instruments(), threading.Event()
    for instrument in instruments:
        instrument.attach(collector)

    def look(instrument: Instrument) -> None:
        while not done.wait(instrument.look()):
            pass

    lookers = [threading.Thread(target=look, args=(instrument,)) for instrument in instruments]
    for looker in lookers:
        looker.start()
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
    finally:
        done.set()
        for looker in lookers:
            looker.join(DEADLINE)
        for instrument in instruments:
            instrument.detach(collector)
            instrument.close()
    return collector.collected()


LOCKS: dict[str, Callable[[], Any]] = {
    "Lock": asyncio.Lock,
    "Semaphore": lambda: asyncio.Semaphore(1),
    "BoundedSemaphore": lambda: asyncio.BoundedSemaphore(1),
    "Condition": asyncio.Condition,
}


@pytest.mark.parametrize("kind", LOCKS)
def test_waits_for_a_lock_are_on_who_waits_and_on_who_releases_it(kind: str) -> None:
    waited = Waited()

    async def hold_in_turn(lock: Any) -> None:
        for _ in range(ROUNDS):
            began = time.monotonic_ns()
            await lock.acquire()
            waited.add(began)
            await asyncio.sleep(HOLD)
            lock.release()

    async def main() -> None:
        lock = LOCKS[kind]()
        await asyncio.gather(*(hold_in_turn(lock) for _ in range(TASKS)))

    found = collect(main)
    assert delay(found.block, ".hold_in_turn", wait="lock") == pytest.approx(waited.ns, rel=0.05)
    assert delay(found.mutex, ".hold_in_turn", wait="lock") == pytest.approx(waited.ns, rel=0.05)
    # Looks at tasks leave out what the locks tell.
    slept = TASKS * ROUNDS * HOLD * 1e9
    assert delay(found.block, ".hold_in_turn", wait="await") <= 1.5 * slept
    # The whole chain, through gather.
    assert delay(found.block, ".main", wait="lock") == pytest.approx(waited.ns, rel=0.05)


def test_who_waits_on_after_a_release_waits_because_of_it() -> None:
    """Whoever released the lock keeps the loop busy."""
    waited = Waited()

    async def releases_late(lock: asyncio.Lock) -> None:
        for _ in range(ROUNDS):
            async with lock:
                await asyncio.sleep(HOLD)
            time.sleep(2 * HOLD)  # noqa: ASYNC251 - that is the point
            await asyncio.sleep(HOLD)

    async def waits_on(lock: asyncio.Lock) -> None:
        for _ in range(ROUNDS):
            while not lock.locked():  # noqa: ASYNC110 - there is no event for that
                await asyncio.sleep(0)
            began = time.monotonic_ns()
            await lock.acquire()
            waited.add(began)
            lock.release()

    async def main() -> None:
        lock = asyncio.Lock()
        await asyncio.gather(releases_late(lock), waits_on(lock))

    found = collect(main)
    assert waited.ns >= ROUNDS * 2.5 * HOLD * 1e9
    assert delay(found.mutex, ".releases_late") == pytest.approx(waited.ns, rel=0.05)


@LOOPS
def test_with_a_lock_and_a_task_group(factory: Factory) -> None:
    waited = Waited()

    async def hold_with(lock: asyncio.Lock) -> None:
        for _ in range(ROUNDS):
            began = time.monotonic_ns()
            async with lock:
                waited.add(began)
                await asyncio.sleep(HOLD)

    async def main() -> None:
        lock = asyncio.Lock()
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(hold_with(lock))

    found = collect(main, factory)
    assert delay(found.block, ".hold_with", wait="lock") == pytest.approx(waited.ns, rel=0.05)
    assert delay(found.mutex, ".hold_with", wait="lock") == pytest.approx(waited.ns, rel=0.05)
    assert delay(found.block, ".main", wait="lock") == pytest.approx(waited.ns, rel=0.05)


def test_a_queue_and_an_event_and_a_condition() -> None:
    got, put, heard, notified = Waited(), Waited(), Waited(), Waited()

    async def get_slowly(queue: asyncio.Queue[int]) -> None:
        for number in range(2 * ROUNDS):
            began = time.monotonic_ns()
            await queue.get()
            got.add(began)
            if number < ROUNDS:
                await asyncio.sleep(HOLD)

    async def put_slowly(queue: asyncio.Queue[int]) -> None:
        for number in range(2 * ROUNDS):
            if number > ROUNDS:
                await asyncio.sleep(HOLD)
            began = time.monotonic_ns()
            await queue.put(number)
            put.add(began)

    async def wait_for_events(events: list[asyncio.Event]) -> None:
        for event in events:
            began = time.monotonic_ns()
            await event.wait()
            heard.add(began)

    async def set_events(events: list[asyncio.Event]) -> None:
        for event in events:
            await asyncio.sleep(HOLD)
            event.set()

    async def wait_for_notes(condition: asyncio.Condition) -> None:
        for _ in range(ROUNDS):
            async with condition:
                began = time.monotonic_ns()
                await condition.wait()
                notified.add(began)

    async def notify_slowly(condition: asyncio.Condition) -> None:
        for _ in range(ROUNDS):
            await asyncio.sleep(HOLD)
            async with condition:
                condition.notify()
                await asyncio.sleep(HOLD)  # who is notified waits on, now for the lock

    async def main() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        events = [asyncio.Event() for _ in range(ROUNDS)]
        condition = asyncio.Condition()
        await asyncio.gather(
            get_slowly(queue),
            put_slowly(queue),
            wait_for_events(events),
            set_events(events),
            wait_for_notes(condition),
            notify_slowly(condition),
        )

    found = collect(main)
    assert delay(found.block, ".get_slowly", wait="lock") == pytest.approx(got.ns, rel=0.05, abs=2e6)
    assert delay(found.block, ".put_slowly", wait="lock") == pytest.approx(put.ns, rel=0.05, abs=2e6)
    assert delay(found.mutex, ".get_slowly") == pytest.approx(put.ns, rel=0.05, abs=2e6)
    assert delay(found.mutex, ".put_slowly") == pytest.approx(got.ns, rel=0.05, abs=2e6)
    assert delay(found.block, ".wait_for_events", wait="lock") == pytest.approx(heard.ns, rel=0.05)
    assert delay(found.mutex, ".set_events") == pytest.approx(heard.ns, rel=0.05)
    assert delay(found.block, ".wait_for_notes", wait="lock") == pytest.approx(notified.ns, rel=0.05)
    assert delay(found.mutex, ".notify_slowly") == pytest.approx(notified.ns, rel=0.05)


@LOOPS
def test_tasks_that_wait_are_a_sample_of_all(factory: Factory) -> None:
    seconds = 6.0

    async def five() -> None:
        await asyncio.sleep(seconds)

    async def three() -> None:
        await asyncio.sleep(seconds)

    async def two() -> None:
        await asyncio.sleep(seconds)

    async def main() -> None:
        waits = [five] * 500 + [three] * 300 + [two] * 200
        await asyncio.gather(*(wait() for wait in waits))

    found = collect(main, factory)
    total = delay(found.block, ".main", wait="await")
    shares = [delay(found.block, f".{name}", wait="await") / total for name in ("five", "three", "two")]
    # 480 tasks are looked at: 0.1 is 4.4 standard deviations of a binomial.
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.1)
    assert total == pytest.approx(1000 * seconds * 1e9 + seconds * 1e9, rel=0.1)


@LOOPS
def test_what_holds_up_a_loop_is_on_its_stack(factory: Factory) -> None:
    async def hogs() -> None:
        for _ in range(10):
            await asyncio.sleep(0.05)
            time.sleep(0.3)  # noqa: ASYNC251 - that is the point

    found = collect(hogs, factory)
    assert delay(found.block, ".hogs", wait="event-loop") == pytest.approx(10 * 0.27e9, rel=0.35)


def test_a_condition_made_before_the_start_is_seen_by_looks() -> None:
    """It has kept its lock's original methods, which nobody measures."""
    waited, condition = Waited(), asyncio.Condition()

    async def hold() -> None:
        async with condition:
            await asyncio.sleep(3.0)

    async def wait_for_it() -> None:
        began = time.monotonic_ns()
        await condition.acquire()
        waited.add(began)
        condition.release()

    async def main() -> None:
        await asyncio.gather(hold(), wait_for_it())

    found = collect(main)
    assert delay(found.block, ".wait_for_it", wait="await") == pytest.approx(waited.ns, rel=0.25)
    assert delay(found.block, ".wait_for_it", wait="lock") == 0
