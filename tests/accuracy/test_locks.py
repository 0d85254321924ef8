"""Waits for locks: how long, where, and who made others wait, by the threads' own clocks."""

from __future__ import annotations

import concurrent.futures
import gc
import inspect
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from waits_kit import delay

from profiling_middleware.captures.collector import Collected, Collector
from profiling_middleware.config import Settings
from profiling_middleware.model import Contention, Sample
from profiling_middleware.sampling import make_engine
from profiling_middleware.sampling.engine import Engine, EngineReport

HOLD, ROUNDS, THREADS = 0.02, 10, 4
DEADLINE = 30.0

Collect = Callable[..., Collected]


class Waited:
    """The time that threads waited, by their own clocks. Without a lock, which would be waited for itself."""

    def __init__(self) -> None:
        self._waits: list[int] = []

    @property
    def ns(self) -> int:
        return sum(self._waits)

    def add(self, began: int) -> None:
        self._waits.append(time.monotonic_ns() - began)


@pytest.fixture(params=["native", "polling", "python"])
def engine(request: pytest.FixtureRequest, need_native: Callable[[], None]) -> Iterator[Engine]:
    """Each of the engines in turn."""
    if request.param != "python":
        need_native()
    engine = make_engine(Settings(engine=request.param, max_overhead=1.0))
    yield engine
    engine.close()


@pytest.fixture
def collect(engine: Engine) -> Collect:
    """Collects from now on; returns what there is when what it is called with has run, each in a thread of its own."""
    collector = Collector(20.0, EngineReport())
    engine.attach(collector)

    def collect(*works: Callable[[], object]) -> Collected:
        threads = [threading.Thread(target=work) for work in works]
        # A collection that begins right after a wait (since 3.12 between two byte codes) is in the thread's own clock
        # only, and after many other tests it takes a tenth of a second.
        gc.disable()
        try:
            for thread in threads:
                thread.start()
            give_up = time.monotonic() + DEADLINE
            while alive := [thread for thread in threads if thread.is_alive()]:
                assert time.monotonic() < give_up
                alive[0].join(min(engine.look(), 0.1))
        finally:
            gc.enable()
        engine.detach(collector)
        return collector.collected()

    return collect


def contended(lock: Any, waited: Waited) -> Callable[[], None]:
    def hold_in_turn() -> None:
        for _ in range(ROUNDS):
            began = time.monotonic_ns()
            lock.acquire()
            waited.add(began)
            time.sleep(HOLD)
            lock.release()

    return hold_in_turn


LOCKS: dict[str, Callable[[], Any]] = {
    # By their names at the time: the portable engine replaces them.
    "Lock": lambda: threading.Lock(),
    "RLock": lambda: threading.RLock(),
    "Condition": threading.Condition,
    "Semaphore": threading.Semaphore,
    "BoundedSemaphore": threading.BoundedSemaphore,
}


@pytest.mark.parametrize("kind", LOCKS)
def test_waits_for_a_lock_are_on_who_waits_and_on_who_releases_it(kind: str, engine: Engine, collect: Collect) -> None:
    waited = Waited()
    hold = contended(LOCKS[kind](), waited)
    found = collect(*[hold] * THREADS)

    assert delay(found.block, ".hold_in_turn", wait="lock") == pytest.approx(waited.ns, rel=0.05)
    assert delay(found.mutex, ".hold_in_turn", wait="lock") == pytest.approx(waited.ns, rel=0.05)
    # What was waited for the lock is not in what looks see; what they see of so short a time is approximate. Those of
    # the portable engine know of a thread that has ended only where they saw it last.
    slept = THREADS * ROUNDS * HOLD * 1e9
    least = 0.25 if engine.name == "python" else 0.4
    assert least * slept <= delay(found.block, ".hold_in_turn", wait="sleep") <= 1.3 * slept


def test_who_waits_on_after_a_release_waits_because_of_it(collect: Collect) -> None:
    """Whoever released the lock goes on with the GIL, which the waiter needs, too."""
    waited, lock, begun = Waited(), threading.Lock(), threading.Semaphore(0)
    before = sys.getswitchinterval()

    def releases_late() -> None:
        for _ in range(ROUNDS):
            lock.acquire()
            begun.release()
            time.sleep(HOLD)
            lock.release()
            until = time.perf_counter() + 2 * HOLD
            while time.perf_counter() < until:
                pass
            time.sleep(HOLD)

    def waits_on() -> None:
        for _ in range(ROUNDS):
            began = time.monotonic_ns()
            begun.acquire()
            lock.acquire()
            waited.add(began)
            lock.release()

    sys.setswitchinterval(1.0)
    try:
        found = collect(releases_late, waits_on)
    finally:
        sys.setswitchinterval(before)
    assert waited.ns >= ROUNDS * 3.5 * HOLD * 1e9
    assert delay(found.mutex, ".releases_late", waiter=f"{__name__}.{waits_on.__qualname__}") == pytest.approx(
        waited.ns, rel=0.05
    )


def test_a_release_is_on_its_line(collect: Collect) -> None:
    waited = Waited()
    hold = contended(threading.Lock(), waited)
    found = collect(*[hold] * THREADS)
    source, first = inspect.getsourcelines(hold)
    line = first + next(number for number, text in enumerate(source) if "lock.release()" in text)

    leaves = {
        (frames[0].line, frames[0].function.rsplit(".", 1)[1])
        for frames, _ in found.mutex
        if "hold_in_turn" in frames[0].function
    }
    assert leaves == {(line, "hold_in_turn")}


def test_a_with_statement_is_on_its_line(collect: Collect) -> None:
    waited, lock = Waited(), threading.Lock()

    def hold_with() -> None:
        for _ in range(ROUNDS):
            began = time.monotonic_ns()
            with lock:
                waited.add(began)
                time.sleep(HOLD)

    found = collect(*[hold_with] * THREADS)
    assert delay(found.block, ".hold_with", wait="lock") == pytest.approx(waited.ns, rel=0.05)
    assert delay(found.mutex, ".hold_with") == pytest.approx(waited.ns, rel=0.05)


def test_a_wait_for_an_event_is_on_the_waiter_and_on_who_sets_it(collect: Collect) -> None:
    waited, events = Waited(), [threading.Event() for _ in range(ROUNDS)]

    def wait_for_events() -> None:
        for event in events:
            began = time.monotonic_ns()
            event.wait(DEADLINE)
            waited.add(began)

    def set_events() -> None:
        for event in events:
            time.sleep(HOLD)
            event.set()

    found = collect(wait_for_events, set_events)
    assert delay(found.block, ".wait_for_events") == pytest.approx(waited.ns, rel=0.05)
    assert delay(found.mutex, ".set_events") == pytest.approx(waited.ns, rel=0.05)


def test_a_queue_is_on_whom_it_is_empty_or_full_for(collect: Collect) -> None:
    waited: queue.Queue[int] = queue.Queue(maxsize=1)
    got, put = Waited(), Waited()

    def get_slowly() -> None:
        for number in range(2 * ROUNDS):
            began = time.monotonic_ns()
            waited.get()
            got.add(began)
            if number < ROUNDS:
                time.sleep(HOLD)

    def put_slowly() -> None:
        for number in range(2 * ROUNDS):
            if number > ROUNDS:
                time.sleep(HOLD)
            began = time.monotonic_ns()
            waited.put(number)
            put.add(began)

    found = collect(get_slowly, put_slowly)
    assert delay(found.block, "queue.Queue.get") == pytest.approx(got.ns, rel=0.05, abs=2e6)
    assert delay(found.block, "queue.Queue.put") == pytest.approx(put.ns, rel=0.05, abs=2e6)
    assert delay(found.mutex, ".get_slowly") == pytest.approx(put.ns, rel=0.05, abs=2e6)
    assert delay(found.mutex, ".put_slowly") == pytest.approx(got.ns, rel=0.05, abs=2e6)


def test_a_future_is_on_who_waits_for_it_and_the_pools_own_waits_are_idle(collect: Collect) -> None:
    waited, closed = Waited(), Waited()

    def wait_for_futures() -> None:
        pool = concurrent.futures.ThreadPoolExecutor(2)
        for _ in range(ROUNDS):
            future = pool.submit(time.sleep, HOLD)
            began = time.monotonic_ns()
            future.result()
            waited.add(began)
        pool.submit(time.sleep, 10 * HOLD)
        began = time.monotonic_ns()
        pool.shutdown()
        closed.add(began)

    found = collect(wait_for_futures)
    assert delay(found.block, "Future.result", wait="lock") == pytest.approx(waited.ns, rel=0.05)
    assert delay(found.block, "ThreadPoolExecutor.shutdown") == pytest.approx(closed.ns, rel=0.05)
    assert delay(found.block, "concurrent.futures.thread._worker", wait="lock") == 0


def test_what_a_busy_thread_waited_for_a_lock_is_not_seen_again_by_looks(engine: Engine, collect: Collect) -> None:
    waited, lock, done = Waited(), threading.Lock(), threading.Event()
    stood_still: list[int] = []

    def hold() -> None:
        while not done.is_set():
            with lock:
                time.sleep(0.01)
            time.sleep(0.002)

    def wait_and_work() -> None:
        started = time.monotonic_ns() - time.thread_time_ns()
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            began = time.monotonic_ns()
            with lock:
                waited.add(began)
            spun = time.thread_time_ns() + 10_000_000
            while time.thread_time_ns() < spun:
                pass
        stood_still.append(time.monotonic_ns() - time.thread_time_ns() - started)
        done.set()

    found = collect(hold, wait_and_work)
    assert delay(found.block, ".wait_and_work", wait="lock") == pytest.approx(waited.ns, rel=0.05)
    # On a busy machine it waits for a core as well, and the portable engine knows where only when it waits again.
    whole = delay(found.block, ".wait_and_work") + delay(found.block, "<not seen waiting>")
    assert (0.95 * waited.ns if engine.name == "python" else 0.75 * stood_still[0]) <= whole <= 1.25 * stood_still[0]


class Hears:
    """A listener of long waits only."""

    wait_looks, hears_work, hears_waits, wait_moments_ns = 0.0, False, False, 1_000_000

    def __init__(self) -> None:
        self.waits: list[Contention] = []

    def receive(self, samples: Sequence[Sample]) -> None:
        """Nothing is done with them."""

    def receive_contentions(self, contentions: Sequence[Contention]) -> None:
        """None are asked for."""

    def receive_lock_waits(self, waits: Sequence[Contention]) -> None:
        self.waits += waits


@pytest.mark.parametrize(("block_rate_ns", "mutex_fraction"), [(10_000, 1), (0, 0)])
def test_what_is_told_one_by_one_is_what_was_waited_whatever_is_summed(
    block_rate_ns: int, mutex_fraction: int, engine: Engine, collect: Collect
) -> None:
    engine.set_wait_rates(block_rate_ns, mutex_fraction)
    engine.attach(hears := Hears())
    waited = Waited()
    hold = contended(threading.Lock(), waited)
    found = collect(*[hold] * THREADS)
    engine.detach(hears)

    waits = [wait for wait in hears.waits if wait.stack.frames[0].function.endswith(".hold_in_turn")]
    assert sum(wait.delay_ns for wait in waits) == pytest.approx(waited.ns, rel=0.05)
    # Whoever waits is let in by another one of them. (Who is always first need not wait at all.)
    assert len({wait.thread for wait in waits}) >= THREADS - 1
    assert len({wait.thread for wait in waits} | {wait.holder for wait in waits}) == THREADS
    assert all(wait.holder is not wait.thread for wait in waits)
    assert delay(found.block, ".hold_in_turn", wait="lock") == pytest.approx(waited.ns * (block_rate_ns > 0), rel=0.05)
