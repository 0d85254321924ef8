"""The locks that the portable engine measures: which ones are, what they claim to be, and what is heard of them."""

from __future__ import annotations

import _thread
import concurrent.futures
import copy
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine_kit import DEADLINE
from lock_kit import Portable, held

from profiling_middleware.contentions import ContentionEvents
from profiling_middleware.sampling.lock_waits import LockWaits

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


def factories() -> tuple[object, ...]:
    return threading.Lock, threading.RLock, threading._allocate_lock, threading.Thread.join  # type: ignore[attr-defined]


ORIGINALS: tuple[Any, ...] = factories()


@pytest.fixture
def portable() -> Iterator[Portable]:
    """Measures, and hears everything."""
    portable = Portable()
    portable.measures.set_rates(1, 1)
    portable.observe()
    yield portable
    portable.close()
    assert factories() == ORIGINALS


def test_a_measured_lock_claims_to_be_an_original_one(portable: Portable) -> None:
    lock, rlock, old = threading.Lock(), threading.RLock(), _thread.allocate_lock()
    assert isinstance(lock, _thread.LockType)
    assert lock.__class__ is _thread.LockType
    assert isinstance(rlock, _thread.RLock)
    kind: Any = type(lock)
    assert isinstance(lock, kind)
    assert isinstance(old, kind)
    assert not isinstance(rlock, kind)
    assert issubclass(_thread.LockType, kind)
    assert not issubclass(int, kind)
    if sys.version_info >= (3, 13):
        assert threading.Lock is kind
    else:
        with pytest.raises(TypeError, match=r"cannot create '_thread\.lock' instances"):
            kind()
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (kind,), {})
    with pytest.raises(TypeError):
        lock.__class__ = int
    with pytest.raises(AttributeError):
        lock.anything = 1  # type: ignore[attr-defined]


def test_an_rlock_can_be_subclassed(portable: Portable) -> None:
    kind: Any = threading.RLock

    class Named(kind):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.name = name

    lock = Named("mine")
    with lock, lock:
        assert lock._is_owned()
    assert lock.name == "mine"


@pytest.mark.parametrize(("name", "called"), [("Lock", "lock"), ("RLock", "RLock")])
def test_it_is_not_copied_and_not_pickled(portable: Portable, name: str, called: str) -> None:
    lock = getattr(threading, name)()
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=f"cannot pickle '_thread.{called}' object"):
            attempt(lock)


def test_locks_made_before_or_by_other_ways_are_plainly_untouched(portable: Portable) -> None:
    portable.leave()
    before = threading.Lock()
    portable.observe()
    assert type(before) is type(_thread.allocate_lock()) is _thread.LockType
    for old in (before, _thread.allocate_lock()):
        end = held(old)
        portable.waits()
        assert old.acquire(timeout=0.02) is False
        assert portable.waits() == 0
        end()


def test_a_lock_outlives_the_measuring_and_is_measured_again(portable: Portable) -> None:
    lock = threading.Lock()
    portable.leave()
    assert type(threading.Lock()) is _thread.LockType
    with lock:
        assert lock.acquire(timeout=0.01) is False
    portable.observe()
    assert portable.waits() == 0
    with lock:
        assert lock.acquire(timeout=0.01) is False
    assert portable.waits() == 1


def test_who_has_put_another_factory_there_keeps_it(portable: Portable) -> None:
    ours = threading.Lock

    def other() -> Any:
        return ours()

    threading.Lock = other  # type: ignore[misc, assignment]
    try:
        portable.leave()
        assert threading.Lock is other
        with threading.Lock():
            pass
    finally:
        threading.Lock = ORIGINALS[0]  # type: ignore[misc]


def test_stacks_are_those_of_the_service(portable: Portable) -> None:
    lock = threading.Lock()
    end = held(lock)
    portable.waits()
    threading.Timer(0.05, end).start()
    with lock:
        pass
    portable.measures.flush()
    here = ".test_stacks_are_those_of_the_service"
    waits = [one for one in portable.contentions if one.waiter is None]
    (wait,) = [one for one in waits if one.stack.frames[0].function.endswith(here)]
    assert wait.thread.name == threading.current_thread().name
    assert not [one for one in portable.contentions if "measured_locks" in one.stack.frames[0].function]
    release = next(one for one in portable.contentions if one.waiter is wait.stack)
    assert release.stack.frames[0].function.endswith(".hold")


@pytest.mark.parametrize("by_hand", [False, True])
def test_nested_releases_of_an_rlock_are_not_the_end_of_a_wait(portable: Portable, by_hand: bool) -> None:
    lock, inner = threading.RLock(), threading.Event()

    def hold_inside() -> None:
        inner.set()
        time.sleep(0.05)

    def hold() -> None:
        with lock:
            if by_hand:
                lock.acquire()
                hold_inside()
                lock.release()
            else:
                with lock:
                    hold_inside()
            time.sleep(0.05)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inner.wait(DEADLINE)
    portable.waits()
    began = time.monotonic_ns()
    with lock:
        waited = time.monotonic_ns() - began
    thread.join(DEADLINE)
    releases = portable.releases(".hold")
    assert sum(one.times for one in releases) == 1
    assert sum(one.delay_ns for one in releases) == pytest.approx(waited, rel=0.05)


def test_who_gives_up_has_not_waited_for_the_last_release(portable: Portable) -> None:
    lock, taken = threading.Lock(), threading.Event()

    def take() -> None:
        with lock:
            taken.set()
            time.sleep(0.1)

    lock.acquire()
    threads = [threading.Thread(target=take), threading.Thread(target=lock.acquire, kwargs={"timeout": 0.15})]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    portable.waits()
    lock.release()
    assert taken.wait(DEADLINE)
    for thread in threads:
        thread.join(DEADLINE)
    late = [one for one in portable.releases(".test_who_gives_up_has_not_waited_for_the_last_release") if not one.times]
    assert len(late) == 1


def test_a_handler_that_waits_for_the_same_lock_does_not_end_its_threads_wait(portable: Portable) -> None:
    lock = threading.Lock()
    end = held(lock)

    def handle(number: int, frame: object) -> None:
        lock.acquire(timeout=0.02)

    before = signal.signal(signal.SIGUSR1, handle)
    pokes = [threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)), threading.Timer(0.2, end)]
    for poke in pokes:
        poke.start()
    portable.waits()
    began = time.monotonic_ns()
    try:
        with lock:
            waited = time.monotonic_ns() - began
    finally:
        signal.signal(signal.SIGUSR1, before)
    for poke in pokes:
        poke.join(DEADLINE)
    assert sum(one.delay_ns for one in portable.releases(".hold")) == pytest.approx(waited, rel=0.1)


def test_to_come_back_to_a_lock_that_is_free_is_no_wait(portable: Portable) -> None:
    condition = threading.Condition()
    with condition:
        portable.waits()
        for _ in range(20):
            condition.wait(0.001)
    assert portable.waits() <= 25


def test_what_was_waited_before_is_forgotten_with_the_last_listener(portable: Portable) -> None:
    lock = threading.Lock()
    with lock:
        lock.acquire(timeout=0.01)
    ident = threading.get_ident()
    assert portable.measures.waited_ns(ident, 0) >= 9e6
    portable.leave()
    assert portable.measures.waited_ns(ident, 0) == 0


def test_what_threading_builds_on_locks_works_and_is_measured(portable: Portable) -> None:
    semaphore, barrier, pending = threading.Semaphore(0), threading.Barrier(2), queue.Queue[int](1)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        taken = pool.submit(semaphore.acquire, timeout=DEADLINE)
        met = pool.submit(barrier.wait, DEADLINE)
        time.sleep(0.05)
        semaphore.release()
        barrier.wait(DEADLINE)
        assert taken.result(DEADLINE) is True
        assert met.result(DEADLINE) in (0, 1)
        got = pool.submit(pending.get, timeout=DEADLINE)
        time.sleep(0.05)
        pending.put(7)
        assert got.result(DEADLINE) == 7
    portable.measures.flush()
    waited_in = {one.stack.frames[1].function for one in portable.contentions if one.waiter is None}
    assert {"threading.Semaphore.acquire", "threading.Barrier._wait", "queue.Queue.get"} <= {
        frame.function for one in portable.contentions for frame in one.stack.frames
    }, waited_in


def test_a_thread_being_born_is_not_entered_anywhere(portable: Portable) -> None:
    """Its first act is to release who has started it, before `threading` has it in its list."""
    dummies: list[str] = []
    original = threading._DummyThread.__init__

    def notice(self: Any) -> None:
        dummies.append("made")
        original(self)

    threading._DummyThread.__init__ = notice  # type: ignore[method-assign]
    try:
        for _ in range(200):
            thread = threading.Thread(target=time.sleep, args=(0.0001,))
            thread.start()
            thread.join(DEADLINE)
    finally:
        threading._DummyThread.__init__ = original  # type: ignore[method-assign]
    assert not dummies


def test_threads_that_ended_are_forgotten() -> None:
    portable = Portable(LockWaits(most_threads=10))
    portable.observe()
    lock = threading.Lock()
    threads = [threading.Thread(target=lock.acquire, kwargs={"timeout": 0.05}) for _ in range(20)]
    with lock:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    assert any(portable.measures.waited_ns(thread.ident, 0) for thread in threads if thread.ident)
    portable.measures.flush()
    assert not any(portable.measures.waited_ns(thread.ident, 0) for thread in threads if thread.ident)
    portable.close()


def test_what_finds_no_room_is_counted() -> None:
    portable = Portable(LockWaits(ContentionEvents(limit=3)))
    portable.measures.set_rates(1, 1)
    portable.observe()
    lock = threading.Lock()
    with lock:
        for _ in range(5):
            lock.acquire(timeout=0.001)
    assert portable.measures.dropped == 2
    assert portable.waits() == 3
    portable.close()


def test_a_forked_child_begins_with_no_waits(run_python: RunPython) -> None:
    ran = run_python(
        """
import os, sys, threading, time
sys.path.insert(0, PATH)
from lock_kit import Portable
portable = Portable()
portable.measures.set_rates(1, 1)
portable.observe()
lock, rlock = threading.Lock(), threading.RLock()
for one in (lock, rlock):
    one.acquire()
threads = [threading.Thread(target=one.acquire, kwargs={"timeout": 1}, daemon=True) for one in (lock, rlock, lock)]
for thread in threads:
    thread.start()
time.sleep(0.2)
child = os.fork()
if child == 0:
    portable.measures.close()
    assert threading.Lock is not type(lock)
    portable.observe()
    for one in (lock, rlock):
        one._at_fork_reinit()
        with one:
            pass
    lock.acquire()
    assert lock.acquire(timeout=0.05) is False
    lock.release()
    portable.measures.flush()
    waits = [one for one in portable.contentions if one.waiter is None]
    assert len(waits) == 1 and 40e6 < waits[0].delay_ns < 1e9, waits
    assert len(portable.contentions) == 1, portable.contentions
    os._exit(0)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
""".replace("PATH", repr(str(__file__).rpartition("/")[0])),
        options=("-W", "ignore::DeprecationWarning"),
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("0\n", "", 0)


def test_many_threads_on_few_locks_all_get_through(portable: Portable) -> None:
    locks: list[Any] = [threading.Lock(), threading.RLock(), threading.Condition()]
    counts = [0, 0, 0]
    before = sys.getswitchinterval()

    def work(number: int) -> None:
        for _ in range(300):
            with locks[number]:
                counts[number] += 1

    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number % 3,)) for number in range(9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    finally:
        sys.setswitchinterval(before)
    assert counts == [900, 900, 900]
    assert not any(lock.waiters for lock in locks[:2])
