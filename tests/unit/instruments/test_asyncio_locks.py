"""asyncio's locks stay what they are while they are measured, and are themselves again afterwards."""

from __future__ import annotations

import asyncio
import gc
import inspect
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import pytest

from profiling_middleware.contentions import ContentionEvents
from profiling_middleware.instruments.asyncio_locks import AsyncioLocks
from profiling_middleware.instruments.operations import endings, operations
from profiling_middleware.model import Contention

METHODS = [(method.owner, method.name) for method in (*operations(), *endings())]


class Heard:
    wait_looks = 8.0

    def __init__(self) -> None:
        self.contentions: list[Contention] = []

    def receive_contentions(self, contentions: Sequence[Contention]) -> None:
        self.contentions += contentions


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def locks(heard: Heard) -> Iterator[AsyncioLocks]:
    locks = AsyncioLocks()
    locks.attach(heard)
    yield locks
    locks.close()


def test_all_methods_are_the_originals_again_when_nobody_listens() -> None:
    originals = [owner.__dict__[name] for owner, name in METHODS]
    locks, one, other = AsyncioLocks(), Heard(), Heard()
    locks.attach(one)
    locks.attach(other)
    locks.detach(one)
    assert all(owner.__dict__[name] is not original for (owner, name), original in zip(METHODS, originals, strict=True))
    locks.detach(other)

    assert [owner.__dict__[name] for owner, name in METHODS] == originals


def test_a_method_that_somebody_else_has_replaced_meanwhile_is_left_to_them(
    locks: AsyncioLocks, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = asyncio.Event.set

    def theirs(event: asyncio.Event) -> None:
        ours(event)

    monkeypatch.setattr(asyncio.Event, "set", theirs)
    locks.detach(heard)

    assert asyncio.Event.set is theirs
    event = asyncio.Event()
    event.set()
    assert event.is_set()


def test_a_task_that_nobody_holds_is_collected_while_it_waits(locks: AsyncioLocks, heard: Heard) -> None:
    """As without us: a consumer whose queue is gone would hold all its frames for as long as somebody listens."""
    gone: list[weakref.ref[Any]] = []

    async def consumes() -> None:
        await asyncio.Queue[int]().get()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        gone.append(weakref.ref(asyncio.create_task(consumes())))
        await asyncio.sleep(0.001)
        gc.collect()

    asyncio.run(main())
    assert gone[0]() is None
    assert (locks._nested, bool(locks._table.waited)) == ({}, False)
    locks.flush()
    (wait,) = heard.contentions
    assert wait.times == 1


def test_arguments_are_passed_on_by_name_too(locks: AsyncioLocks, heard: Heard) -> None:
    async def main() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        await queue.put(item=1)  # needs not wait
        waits = asyncio.create_task(queue.put(item=2))
        await asyncio.sleep(0.001)
        got = [await queue.get()]
        await waits
        got.append(await queue.get())
        queue.put_nowait(item=3)
        return [*got, queue.get_nowait()]

    assert asyncio.run(main()) == [1, 2, 3]
    locks.flush()
    assert [wait.times for wait in heard.contentions if wait.waiter is None] == [1]


def test_a_task_that_waits_has_the_originals_name(locks: AsyncioLocks) -> None:
    async def main() -> str:
        task = asyncio.create_task(asyncio.Queue[int]().get())
        await asyncio.sleep(0)
        named = repr(task)
        task.cancel()
        return named

    assert "coro=<Queue.get() running at" in asyncio.run(main())


@pytest.mark.parametrize("kind", ["any", "named", "default"])
def test_a_method_that_somebody_else_has_replaced_before_gets_its_arguments(
    kind: str, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the original takes none, theirs may."""
    original, got = asyncio.Event.set, []

    def takes_any(event: asyncio.Event, *why: str) -> None:
        got.extend(why)
        original(event)

    def takes_named(event: asyncio.Event, *, why: str = "") -> None:
        takes_any(event, why)

    def takes_default(event: asyncio.Event, why: str = "") -> None:
        takes_any(event, why)

    theirs = {"any": takes_any, "named": takes_named, "default": takes_default}[kind]
    monkeypatch.setattr(asyncio.Event, "set", theirs)
    locks = AsyncioLocks()
    locks.attach(heard)
    try:
        event: Any = asyncio.Event()
        assert asyncio.Event.set is not theirs
        if kind == "named":
            event.set(why="done")
        else:
            event.set("done")
    finally:
        locks.close()
    assert got == ["done"]
    assert event.is_set()
    assert asyncio.Event.set is theirs


def test_they_look_like_the_originals(locks: AsyncioLocks) -> None:
    assert inspect.iscoroutinefunction(asyncio.Lock.acquire) or asyncio.iscoroutinefunction(asyncio.Lock.acquire)
    assert asyncio.Lock.acquire.__name__ == "acquire"
    assert asyncio.Lock.acquire.__doc__
    assert list(inspect.signature(asyncio.Queue.put).parameters) == ["self", "item"]


def test_what_need_not_wait_is_not_told(locks: AsyncioLocks, heard: Heard) -> None:
    async def main() -> None:
        lock, queue, event = asyncio.Lock(), asyncio.Queue[int](), asyncio.Event()
        event.set()
        for _ in range(100):
            async with lock:
                await queue.put(1)
                await queue.get()
                await event.wait()

    asyncio.run(main())
    locks.flush()
    assert heard.contentions == []


async def contend(lock: Any) -> list[int]:
    order: list[int] = []

    async def take(number: int) -> None:
        async with lock:
            order.append(number)
            await asyncio.sleep(0.001)

    await asyncio.gather(*(take(number) for number in range(10)))
    return order


@pytest.mark.parametrize("make", [asyncio.Lock, lambda: asyncio.Semaphore(1), anyio.Lock, lambda: anyio.Semaphore(1)])
def test_whoever_came_first_goes_first(make: Any, locks: AsyncioLocks, heard: Heard) -> None:
    async def main() -> list[int]:
        return await contend(make())

    assert asyncio.run(main()) == list(range(10))
    locks.flush()
    assert sum(contention.waiter is None for contention in heard.contentions) >= 9


def test_a_wait_that_is_cancelled_counts_as_long_as_it_lasted_and_takes_no_lock(
    locks: AsyncioLocks, heard: Heard
) -> None:
    async def main() -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await lock.acquire()
        lock.release()
        assert not lock.locked()
        async with lock:
            pass

    asyncio.run(main())
    locks.flush()
    (wait,) = (contention for contention in heard.contentions if contention.waiter is None)
    assert 40e6 <= wait.delay_ns <= 5e9
    assert wait.stack.frames[0].function.endswith(".main")


@pytest.mark.parametrize("stands_for", [1.0, 20.0])
def test_a_wait_has_its_time_if_it_stands_for_no_other_one(stands_for: float, heard: Heard) -> None:
    class Events(ContentionEvents):
        def choose_wait(self, waited_ns: int) -> tuple[float, float]:
            return stands_for, float(waited_ns)

    locks, ended = AsyncioLocks(Events()), []

    async def main() -> None:
        lock = asyncio.Lock()

        async def waits() -> None:
            async with lock:
                ended.append(time.monotonic_ns())

        await lock.acquire()
        waiting = asyncio.create_task(waits())
        await asyncio.sleep(0.03)
        ended.append(time.monotonic_ns())
        lock.release()
        await waiting

    locks.attach(heard)
    asyncio.run(main())
    locks.detach(heard)
    locks.close()
    (wait,) = (contention for contention in heard.contentions if contention.waiter is None)
    assert (ended[0] <= wait.time_ns <= ended[1]) if stands_for == 1 else wait.time_ns == 0
    assert all(contention.time_ns == 0 for contention in heard.contentions if contention.waiter is not None)


def test_a_subclass_is_measured_once(locks: AsyncioLocks, heard: Heard) -> None:
    class Polite(asyncio.Lock):
        async def acquire(self) -> Any:
            return await super().acquire()

    async def main() -> None:
        await contend(Polite())

    asyncio.run(main())
    locks.flush()
    assert sum(contention.times for contention in heard.contentions if contention.waiter is None) == pytest.approx(9)


def test_nothing_is_kept_of_a_lock_that_nobody_waits_for(locks: AsyncioLocks) -> None:
    async def main() -> weakref.ref[asyncio.Lock]:
        lock = asyncio.Lock()
        await contend(lock)
        return weakref.ref(lock)

    gone = asyncio.run(main())
    gc.collect()
    assert gone() is None
    assert not locks._table.waited
    assert locks._nested == {}


def test_a_rate_records_some_and_counts_for_all(locks: AsyncioLocks, heard: Heard) -> None:
    locks.set_wait_rates(50_000_000, 3)

    async def main() -> None:
        for _ in range(120):
            await contend(asyncio.Lock())

    asyncio.run(main())
    locks.flush()
    waits = [contention for contention in heard.contentions if contention.waiter is None]
    releases = [contention for contention in heard.contentions if contention.waiter is not None]
    # 120 times 9 waits of 1 to 9 ms and more: 5.4 s at the least, so some 110 are recorded, give or take a tenth.
    assert 0 < len(waits) < 800
    assert sum(wait.delay_ns for wait in waits) == pytest.approx(sum(release.delay_ns for release in releases), rel=0.5)


def test_no_event_is_kept_beyond_the_bound_and_each_is_counted(heard: Heard) -> None:
    locks = AsyncioLocks(ContentionEvents(limit=5))
    locks.attach(heard)

    async def main() -> None:
        await contend(asyncio.Lock())

    asyncio.run(main())
    locks.flush()
    assert len(heard.contentions) == 5
    locks.detach(heard)
    (limit,) = locks.limits
    assert limit.endswith(" contentions of asyncio's locks found no room since the process started")
    assert int(limit.split()[0]) > 0


def test_a_wait_that_ends_after_the_last_listener_has_left_is_told_to_nobody(heard: Heard) -> None:
    locks = AsyncioLocks()
    locks.attach(heard)

    async def main() -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        waiter = asyncio.create_task(lock.acquire())
        await asyncio.sleep(0.01)
        locks.detach(heard)
        lock.release()
        await waiter

    asyncio.run(main())
    later = Heard()
    locks.attach(later)
    locks.detach(later)
    assert later.contentions == []
