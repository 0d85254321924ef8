"""The locks that the portable engine measures: which ones are, what they claim to be, and what is heard of them."""

from __future__ import annotations

import _thread
import concurrent.futures
import copy
import gc
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from engine_kit import DEADLINE, Heard, look_until
from lock_kit import Portable, held

from profiling_middleware.contentions import ContentionEvents
from profiling_middleware.sampling.engine import Engine
from profiling_middleware.sampling.lock_log import LockLog
from profiling_middleware.sampling.lock_observer import Wait

pytestmark = pytest.mark.skipif(not Portable.available(), reason="this interpreter's locks are not measured")

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


def factories() -> tuple[object, ...]:
    names: Any = threading
    return threading.Lock, names._CRLock, names._allocate_lock, threading.Thread.join


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


def is_measured(lock: Any) -> bool:
    return type(lock) not in (_thread.LockType, _thread.RLock)


def test_a_measured_lock_claims_to_be_an_original_one(portable: Portable) -> None:
    lock, rlock, old = threading.Lock(), threading.RLock(), _thread.allocate_lock()
    assert is_measured(lock)
    assert is_measured(rlock)
    assert isinstance(lock, _thread.LockType)
    assert lock.__class__ is _thread.LockType
    assert isinstance(rlock, _thread.RLock)
    kind: Any = type(lock)
    assert isinstance(lock, kind)
    assert isinstance(old, kind)
    assert not isinstance(rlock, kind)
    assert issubclass(_thread.LockType, kind)
    assert not issubclass(int, kind)
    assert callable(threading.Lock)
    assert isinstance(threading.Lock, type) is (sys.version_info >= (3, 13))
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (kind,), {})
    with pytest.raises((TypeError, AttributeError)):
        lock.__class__ = int
    with pytest.raises(AttributeError):
        lock.anything = 1  # type: ignore[attr-defined]
    assert not callable(lock)
    for missing in ("_is_owned", "_release_save", "_acquire_restore"):
        assert not hasattr(lock, missing)


def test_a_factory_is_no_method_of_a_class_that_has_it(portable: Portable) -> None:
    class Service:
        make_lock, make_rlock = threading.Lock, threading.RLock

    assert is_measured(Service().make_lock())
    assert is_measured(Service.make_rlock())


def test_an_rlock_can_be_subclassed(portable: Portable) -> None:
    kind: Any = type(threading.RLock())

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


@pytest.mark.parametrize("name", ["Lock", "RLock"])
def test_it_goes_as_soon_as_nobody_has_it_whether_it_was_waited_for_or_not(portable: Portable, name: str) -> None:
    gc.disable()
    try:
        lock = getattr(threading, name)()
        end = held(lock)
        lock.acquire(timeout=0.01)
        end()
        portable.waits()
        references = weakref.ref(lock), weakref.ref(lock.release)
        del lock, end
        assert [reference() for reference in references] == [None, None]
        with getattr(threading, name)():
            pass
    finally:
        gc.enable()


def test_locks_made_before_or_by_other_ways_are_plainly_untouched(portable: Portable) -> None:
    portable.leave()
    taken_before, before = threading.Lock, threading.Lock()
    portable.observe()
    for old in (before, taken_before(), _thread.allocate_lock(), _thread.RLock()):
        assert not is_measured(old)
        end = held(old)
        portable.waits()
        assert old.acquire(timeout=0.02) is False
        assert portable.waits() == 0
        end()


def test_who_has_taken_the_name_of_rlocks_before_has_measured_ones(portable: Portable) -> None:
    assert threading.RLock.__module__ == "threading"
    assert is_measured(threading.RLock())
    assert is_measured(threading.Condition()._lock)  # type: ignore[attr-defined]


def test_a_lock_outlives_the_measuring_and_is_measured_again(portable: Portable) -> None:
    lock = threading.Lock()
    portable.leave()
    assert not is_measured(threading.Lock())
    with lock:
        assert lock.acquire(timeout=0.01) is False
    portable.observe()
    assert portable.waits() == 0
    with lock:
        assert lock.acquire(timeout=0.01) is False
    assert portable.waits() == 1


def test_a_wait_that_began_before_somebody_listened_does_not_count(portable: Portable) -> None:
    lock = threading.Lock()
    for leaves_first in (True, False):
        end = held(lock)
        if leaves_first:
            portable.leave()
        waiter = threading.Thread(target=lock.acquire, kwargs={"timeout": DEADLINE})
        waiter.start()
        time.sleep(0.05)
        portable.leave()
        portable.observe()
        end()
        waiter.join(DEADLINE)
        lock.release()
        portable.measures.flush()
        told = [
            one for one in portable.contentions if one.delay_ns > 40e6 and "join" not in one.stack.frames[0].function
        ]
        assert [one for one in told if one.thread.name == waiter.name] == []
        portable.contentions.clear()


@pytest.mark.parametrize("name", ["Lock", "_allocate_lock", "_CRLock"])
def test_who_has_put_another_factory_there_keeps_it(portable: Portable, name: str) -> None:
    place: Any = threading
    ours, original = getattr(place, name), ORIGINALS[["Lock", "_CRLock", "_allocate_lock"].index(name)]

    def other() -> Any:
        return ours()

    setattr(place, name, other)
    try:
        portable.leave()
        assert getattr(place, name) is other
        portable.observe()
        assert getattr(place, name) is other
        with other():
            pass
        portable.leave()
        assert getattr(place, name) is other
    finally:
        setattr(place, name, original)


def test_one_of_two_has_the_names(portable: Portable) -> None:
    names = factories()
    other = Portable()
    other.observe()
    assert factories() == names
    other.leave()
    assert factories() == names


def test_engines_of_one_process_share_what_measures(open_engine: Callable[..., Engine]) -> None:
    one, two = open_engine("python"), open_engine("python")
    first, second = Heard(wait_moments_ns=1), Heard(wait_moments_ns=1)
    one.attach(first)
    lock = threading.Lock()
    two.attach(second)
    one.detach(first)
    with lock:
        lock.acquire(timeout=0.02)
    two.detach(second)
    assert len(second.lock_waits) == 1
    assert first.lock_waits == []
    assert factories() == ORIGINALS


def test_stacks_are_those_of_the_service(portable: Portable) -> None:
    lock = threading.Lock()
    end = held(lock)
    portable.waits()
    portable.when_waiting(partial(time.sleep, 0.02), end)
    with lock:
        pass
    portable.measures.flush()
    here = ".test_stacks_are_those_of_the_service"
    waits = [one for one in portable.contentions if one.waiter is None]
    (wait,) = [one for one in waits if one.stack.frames[0].function.endswith(here)]
    assert wait.thread.name == threading.current_thread().name
    assert not [one for one in portable.contentions if "sampling.lock_" in one.stack.frames[0].function]
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


def test_a_condition_that_lets_go_of_its_rlock_has_ended_waits_for_it(portable: Portable) -> None:
    condition, inside = threading.Condition(), _thread.allocate_lock()
    inside.acquire()

    def waits_for_news() -> None:
        with condition:
            inside.release()
            time.sleep(0.05)
            condition.wait(DEADLINE)

    thread = threading.Thread(target=waits_for_news)
    thread.start()
    assert inside.acquire(timeout=DEADLINE)
    began = time.monotonic_ns()
    with condition:
        waited = time.monotonic_ns() - began
        condition.notify()
    thread.join(DEADLINE)
    portable.measures.flush()
    released = [
        one
        for one in portable.contentions
        if one.waiter is not None
        and one.waiter.frames[1].function.endswith("lets_go_of_its_rlock_has_ended_waits_for_it")
        and any(frame.function.endswith(".waits_for_news") for frame in one.stack.frames)
    ]
    assert sum(one.delay_ns for one in released) == pytest.approx(waited, rel=0.05)


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
    ends = portable.releases(".test_who_gives_up_has_not_waited_for_the_last_release")
    assert sum(one.times for one in ends) == 1


def test_a_handler_that_waits_for_the_same_lock_does_not_end_its_threads_wait(portable: Portable) -> None:
    lock = threading.Lock()
    end, handled, own_ident = held(lock), threading.Event(), threading.get_ident()

    def handle(number: int, frame: object) -> None:
        if not handled.is_set():
            handled.set()
            lock.acquire(timeout=0.02)

    def poke() -> None:
        # Again: a signal that comes right before the thread stands still is handled after its wait.
        give_up = time.monotonic() + DEADLINE
        while not handled.is_set() and time.monotonic() < give_up:
            signal.pthread_kill(own_ident, signal.SIGUSR1)
            time.sleep(0.01)

    before = signal.signal(signal.SIGUSR1, handle)
    portable.waits()
    own = threading.get_native_id()
    pokes = portable.when_waiting(poke, partial(time.sleep, 0.2), end)
    waited_before = portable.measures.waited_ns(own, 0)
    began = time.monotonic_ns()
    try:
        with lock:
            waited = time.monotonic_ns() - began
    finally:
        signal.signal(signal.SIGUSR1, before)
    pokes.join(DEADLINE)
    # What waited was its thread, once: the handler's part of it is within the other.
    assert sum(one.delay_ns for one in portable.releases(".hold")) == pytest.approx(waited + 20e6, rel=0.1)
    told = sum(one.delay_ns for one in portable.contentions if one.waiter is None and one.thread.native_id == own)
    assert told - (portable.measures.waited_ns(own, 0) - waited_before) == pytest.approx(20e6, rel=0.2)


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
    own = threading.get_native_id()
    assert portable.measures.waited_ns(own, 0) >= 9e6
    portable.leave()
    assert portable.measures.waited_ns(own, 0) == 0


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
    waited_in = {frame.function for one in portable.contentions if one.waiter is None for frame in one.stack.frames}
    assert {"threading.Semaphore.acquire", "threading.Barrier._wait", "queue.Queue.get"} <= waited_in


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


def test_threads_that_ended_are_forgotten(portable: Portable) -> None:
    lock = threading.Lock()
    threads = [threading.Thread(target=lock.acquire, kwargs={"timeout": 0.05}) for _ in range(20)]
    with lock:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    portable.measures.flush()
    measures, ids = portable.measures, [thread.native_id for thread in threads if thread.native_id is not None]
    assert all(measures.waited_ns(one, 0) > 40e6 for one in ids)
    measures.keep_threads({ids[0]})
    assert [one for one in ids if measures.waited_ns(one, 0)] == ids[:1]


def test_what_finds_no_room_is_counted() -> None:
    log, waits = LockLog(ContentionEvents(), limit=3), [Wait() for _ in range(5)]
    for wait in waits:
        log.begins(wait, None, sys._getframe())
    assert (len(log.waits), log.dropped) == (3, 2)


def test_what_fails_while_it_is_noted_is_counted_and_the_lock_is_a_lock(
    portable: Portable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(LockLog, "begins", fails)
    lock = threading.Lock()
    end = held(lock)
    threading.Timer(0.02, end).start()
    with lock:
        assert lock.acquire(timeout=0.01) is False
    monkeypatch.undo()
    monkeypatch.setattr(LockLog, "released", fails)
    end = held(lock)
    threading.Timer(0.02, end).start()
    with lock:
        assert lock.acquire(timeout=0.01) is False
    assert any("could not be noted" in limit for limit in portable.measures.limits)


@pytest.mark.parametrize("listens", [False, True])
def test_a_forked_child_has_plain_behaviour_and_begins_with_no_waits(listens: bool, run_python: RunPython) -> None:
    ran = run_python(
        """
import os, sys, threading, time
sys.path.insert(0, PATH)
from lock_kit import Portable
portable = Portable()
plain = threading.Lock
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
    lock._at_fork_reinit()
    assert not lock._way.waits
    lock.acquire()
    portable.measures.forget(portable)
    assert threading.Lock is plain
    portable.contentions.clear()
    rlock.release()
    with rlock:
        pass
    if LISTENS:
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
    assert len(waits) == LISTENS, waits
    assert all(40e6 < wait.delay_ns < 1e9 for wait in waits), waits
    assert len(portable.contentions) == LISTENS, portable.contentions
    os._exit(0)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
""".replace("PATH", repr(str(__file__).rpartition("/")[0])).replace("LISTENS", str(listens)),
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
    assert not any(portable.measures.is_waiting(thread.native_id or 0) for thread in threads)


def test_the_profile_says_what_is_not_measured(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine("python")

    def said() -> list[str]:
        return [limit for limit in engine.limits if "older locks" in limit]

    engine.attach(other := Heard())
    assert said() == []
    engine.attach(heard := Heard(wait_moments_ns=1))
    assert len(said()) == 1
    engine.detach(heard)
    assert said() == []
    engine.detach(other)


def test_what_was_waited_for_a_measured_lock_is_marked_in_what_looks_see(open_engine: Callable[..., Engine]) -> None:
    engine, heard = open_engine("python"), Heard(wants_waits=True, wait_moments_ns=1)
    engine.attach(heard)
    lock, begun, done = threading.Lock(), threading.Event(), threading.Event()

    def waits() -> None:
        begun.set()
        for _ in range(2):
            lock.acquire(timeout=0.1)
        done.set()
        os.read(seen, 1)  # what it waited for since the look before is told by one that still finds it

    lock.acquire()
    thread = threading.Thread(target=waits, name="waits")
    seen, see = os.pipe()
    try:
        thread.start()
        assert begun.wait(DEADLINE)
        look_until(engine, done)
        engine.look()
    finally:
        os.close(see)
        thread.join(DEADLINE)
        os.close(seen)
    engine.detach(heard)
    told = sum(wait.delay_ns for wait in heard.lock_waits if wait.stack.frames[0].function.endswith(".waits"))
    marked = sum(sample.lock_ns for sample in heard.samples if sample.thread.name == "waits")
    assert told >= 190e6
    assert marked == pytest.approx(told, rel=0.1)
