"""Locks stay locks while they are observed, in everything that a program can ask of one: whoever observes them."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import pytest
from engine_kit import DEADLINE
from lock_kit import Portable, held


class Observer(Protocol):
    """Who observes, or not."""

    def observe(self) -> None: ...

    def leave(self) -> None: ...

    def waits(self) -> float:
        """How many were recorded since this was asked last."""

    def close(self) -> None: ...


class Native:
    """The extension."""

    def __init__(self) -> None:
        from profiling_middleware.sampling import _native

        self._native: Any = _native
        self._native.set_contention_rates(1, 1)
        self._native.clear()

    def observe(self) -> None:
        assert self._native.observe_locks()

    def leave(self) -> None:
        self._native.leave_locks()

    def waits(self) -> float:
        fields = self._native.drain()[4]
        return float(sum(times for is_release, times in zip(fields[::8], fields[4::8], strict=True) if not is_release))

    def close(self) -> None:
        self.leave()
        self._native.clear()


@pytest.fixture(params=["native", "portable"])
def observer(request: pytest.FixtureRequest, need_native: Callable[[], None]) -> Iterator[Observer]:
    """Measures."""
    observer: Observer
    if request.param == "native":
        need_native()
        observer = Native()
    else:
        if not Portable.available():
            pytest.skip("this interpreter's locks are not measured")
        observer = Portable()
    observer.observe()
    yield observer
    observer.close()


@pytest.fixture(params=["Lock", "RLock"])
def lock(request: pytest.FixtureRequest, observer: Observer) -> Any:
    return getattr(threading, request.param)()


def test_it_is_taken_and_released(lock: Any, observer: Observer) -> None:
    observer.waits()
    for _ in range(3):
        assert lock.acquire() is True
        lock.release()
        with lock as entered:
            assert entered is True
        assert lock.acquire(True, 1.0) is True
        lock.release()
        assert lock.acquire(blocking=False) is True
        lock.release()
    assert observer.waits() == 0


def test_it_is_taken_and_released_by_what_its_type_has(lock: Any) -> None:
    kind: Any = type(lock)
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(lock) is True
        assert "unlocked" not in repr(lock)
    assert "unlocked" in repr(lock)
    for arguments in ({}, {"blocking": False}, {"timeout": 1.0}):
        assert kind.acquire(lock, **arguments) is True
        kind.release(lock)
    assert kind.__enter__(lock) is True
    assert kind.__exit__(lock, None, None, None) is None
    assert "unlocked" in repr(lock)
    assert isinstance(lock, contextlib.AbstractContextManager)


def test_to_ask_whether_a_method_is_there_does_nothing(lock: Any) -> None:
    """As for callbacks that may be None."""
    assert lock.acquire
    assert lock.release
    assert "unlocked" in repr(lock)
    lock.acquire()
    calls = [callback for callback in (lock.release, None) if callback]
    assert calls == [lock.release]
    calls[0]()
    assert "unlocked" in repr(lock)


def test_a_lock_says_whether_it_is_locked(observer: Observer) -> None:
    lock = threading.Lock()
    assert lock.locked() is False
    with lock:
        assert lock.locked() is True
        assert "locked" in repr(lock)
        assert lock.acquire(False) is False
    assert lock.locked() is False
    assert repr(lock).startswith("<unlocked _thread.lock object at ")


def test_an_rlock_is_taken_again_by_its_owner_only(observer: Observer) -> None:
    lock = threading.RLock()
    with lock, lock:
        assert lock._is_owned()  # type: ignore[attr-defined]
        assert "count=2" in repr(lock)
    assert not lock._is_owned()  # type: ignore[attr-defined]
    end = held(lock)
    assert lock.acquire(blocking=False) is False
    assert lock.acquire(timeout=0.02) is False
    end()
    assert lock.acquire() is True
    lock.release()


@pytest.mark.parametrize(
    ("arguments", "named", "error"),
    [
        ((False, 1.0), {}, ValueError),
        ((True, -5.0), {}, ValueError),
        ((True, 1e30), {}, OverflowError),
        ((1, 2, 3), {}, TypeError),
        ((), {"patience": 1}, TypeError),
        ((), {"timeout": "long"}, TypeError),
    ],
)
def test_what_it_refuses_it_still_refuses(
    lock: Any, arguments: tuple[Any, ...], named: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        lock.acquire(*arguments, **named)
    end = held(lock)
    with pytest.raises(error):
        lock.acquire(*arguments, **named)
    end()
    with pytest.raises(RuntimeError):
        lock.release()
    with pytest.raises(TypeError):
        lock.release(1)


def test_a_wait_that_times_out_is_a_wait(lock: Any, observer: Observer) -> None:
    end = held(lock)
    observer.waits()
    began = time.monotonic()
    assert lock.acquire(timeout=0.05) is False
    assert time.monotonic() - began >= 0.045
    assert lock.acquire(True, 0.05) is False
    assert observer.waits() == 2
    assert lock.acquire(False) is False
    assert lock.acquire(blocking=0) is False
    assert observer.waits() == 0
    end()


def test_it_says_to_be_of_the_same_type_and_can_be_referred_to_weakly(lock: Any, observer: Observer) -> None:
    reference, text = weakref.ref(lock), repr(lock)
    observer.leave()
    unobserved = [threading.Lock(), threading.RLock()]
    assert [one for one in unobserved if isinstance(lock, type(one))]
    assert text.split(" at ")[0] in [repr(one).split(" at ")[0] for one in unobserved]
    assert reference() is lock
    with pytest.raises(TypeError):
        __import__("pickle").dumps(lock)


def test_a_handler_runs_while_it_waits_and_may_end_the_wait(lock: Any) -> None:
    end = held(lock)
    seen: list[int] = []

    def handle(number: int, frame: object) -> None:
        seen.append(number)
        if len(seen) == 2:
            raise InterruptedError("enough")

    before = signal.signal(signal.SIGUSR1, handle)
    waits = threading.get_ident()

    def poke() -> None:
        # Again and again: on a busy machine two may come as one, and the first before anybody waits.
        give_up = time.monotonic() + DEADLINE
        while len(seen) < 2 and time.monotonic() < give_up:
            signal.pthread_kill(waits, signal.SIGUSR1)
            time.sleep(0.05)

    poking = threading.Timer(0.05, poke)
    poking.start()
    try:
        with pytest.raises(InterruptedError):
            lock.acquire()
    finally:
        poking.join()
        signal.signal(signal.SIGUSR1, before)
        end()
    assert len(seen) >= 2
    assert lock.acquire(timeout=1.0) is True
    lock.release()


def test_a_handler_may_wait_for_a_lock_while_its_thread_waits_for_one(lock: Any, observer: Observer) -> None:
    end, other = held(lock), threading.Lock()
    other.acquire()

    def handle(number: int, frame: object) -> None:
        other.acquire(timeout=0.05)

    before = signal.signal(signal.SIGUSR1, handle)
    poke = partial(signal.pthread_kill, threading.get_ident(), signal.SIGUSR1)
    threading.Timer(0.05, poke).start()
    observer.waits()
    try:
        assert lock.acquire(timeout=0.3) is False
    finally:
        signal.signal(signal.SIGUSR1, before)
        end()
    assert observer.waits() >= 2


def test_conditions_wait_and_are_notified(observer: Observer) -> None:
    condition, ready, seen = threading.Condition(), threading.Semaphore(0), []

    def wait(number: int) -> None:
        with condition:
            ready.release()
            if condition.wait(DEADLINE):
                seen.append(number)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for _ in threads:
        ready.acquire()
    with condition:
        condition.notify(2)
        condition.notify_all()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(seen) == [0, 1, 2, 3, 4]
    with condition:
        assert condition.wait(0.01) is False


def test_observing_begins_and_ends_while_threads_wait(observer: Observer) -> None:
    locks = [threading.Lock(), threading.RLock()]
    counts, stop = [0, 0], threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            with locks[number]:
                counts[number] += 1

    threads = [threading.Thread(target=work, args=(number % 2,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(60):
        observer.leave()
        time.sleep(0.0005)
        observer.observe()
        time.sleep(0.0005)
        observer.waits()
    stop.set()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert all(counts)
