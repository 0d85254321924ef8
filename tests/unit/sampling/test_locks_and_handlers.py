"""Wherever a signal handler raises, a lock that the portable engine measures is free afterwards, as the interpreter's.

Handlers run where the interpreter looks for them: when a function begins, after a call, at the end of a loop's turn.
Each of these places in a round of `with lock` is tried, one after the other.
"""

from __future__ import annotations

import _thread
import gc
import inspect
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest
from engine_kit import DEADLINE
from lock_kit import Portable, held

from profiling_middleware.sampling import lock_ways
from profiling_middleware.sampling.lock_observer import Wait
from profiling_middleware.sampling.lock_ways import Way

pytestmark = pytest.mark.skipif(not Portable.available(), reason="this interpreter's locks are not measured")


class Interrupted(Exception):  # noqa: N818 - not an error
    """What the handler raises: an Exception, as a service's time-out may be."""


class Handler:
    """Has SIGUSR1, and raises at the n-th place where a handler can run after `-handler`.

    That is one instruction without a place of its own: the first one is behind it.
    """

    def __init__(self) -> None:
        self.raises_at = 0
        """0 while it does not."""
        self.places = 0
        self.raised = self.arrived = False
        """Whether it has, and whether that came to whoever uses the lock."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.places += 1
        if self.places == self.raises_at:
            self.raises_at, self.raised = 0, True
            raise Interrupted
        if self.places < self.raises_at:
            -self  # type: ignore[operator]  # noqa: B018 - again, at the next place

    def begin(self, place: int) -> None:
        self.raises_at, self.places = place, 0
        self.raised = self.arrived = False


Handler.__neg__ = staticmethod(partial(_thread.interrupt_main, signal.SIGUSR1))  # type: ignore[attr-defined]


@pytest.fixture
def handler() -> Iterator[Handler]:
    """Installed."""
    handler = Handler()
    before = signal.signal(signal.SIGUSR1, handler)
    yield handler
    handler.begin(0)
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def portable() -> Iterator[Portable]:
    """Measures. What the collector calls, which swallows what handlers raise in it, is not called meanwhile."""
    portable = Portable()
    portable.observe()
    gc.disable()
    yield portable
    gc.enable()
    portable.close()


class Other:
    """Another thread, which takes the lock, or waits for it."""

    def __init__(self, lock: Any, holds_seconds: float) -> None:
        self.has_it, self._lock, self._holds_seconds = _thread.allocate_lock(), lock, holds_seconds
        self.has_it.acquire()
        self.began = _thread.allocate_lock()
        self.began.acquire()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()
        assert self.began.acquire(timeout=DEADLINE)

    def _work(self) -> None:
        self.began.release()
        with self._lock:
            self.has_it.release()
            time.sleep(self._holds_seconds)

    def is_through(self) -> bool:
        self.thread.join(0.5)
        return not self.thread.is_alive()


def free(lock: Any, handler: Handler) -> bool:
    """Nobody else wants it."""
    try:
        -handler  # type: ignore[operator]  # noqa: B018
        with lock:
            pass
        handler.raises_at = 0
    except Interrupted:
        handler.arrived = True
    return is_free(lock)


def waited_for(lock: Any, handler: Handler) -> bool:
    """Somebody else has it, and lets it go while the handler is due."""
    other = Other(lock, 0.003)
    assert other.has_it.acquire(timeout=DEADLINE)
    try:
        -handler  # type: ignore[operator]  # noqa: B018
        with lock:
            pass
        handler.raises_at = 0
    except Interrupted:
        handler.arrived = True
    return other.is_through() and is_free(lock)


def due_when_it_is_let_in(lock: Any, handler: Handler) -> bool:
    """The handler is due from the moment in which the lock has been taken, or shortly before."""
    taken, goes_on = _thread.allocate_lock(), _thread.allocate_lock()
    for one in (taken, goes_on):
        one.acquire()

    def lets_in() -> None:
        with lock:
            taken.release()
            goes_on.acquire(timeout=DEADLINE)
            time.sleep(0.003)
            -handler  # type: ignore[operator]  # noqa: B018

    other = threading.Thread(target=lets_in)
    other.start()
    assert taken.acquire(timeout=DEADLINE)
    try:
        goes_on.release()
        with lock:
            pass
        handler.raises_at = 0
    except Interrupted:
        handler.arrived = True
    other.join(DEADLINE)
    return is_free(lock)


def wanted(lock: Any, handler: Handler) -> bool:
    """Somebody else waits for it when it is released."""
    other = None
    try:
        with lock:
            other = Other(lock, 0)
            time.sleep(0.002)
            -handler  # type: ignore[operator]  # noqa: B018
        handler.raises_at = 0
    except Interrupted:
        handler.arrived = True
    assert other is not None
    return other.is_through() and is_free(lock)


def released_by_hand(lock: Any, handler: Handler) -> bool:
    """As `wanted`, with calls."""
    lock.acquire()
    other = Other(lock, 0)
    time.sleep(0.002)
    try:
        -handler  # type: ignore[operator]  # noqa: B018
        lock.release()
        handler.raises_at = 0
    except Interrupted:
        handler.arrived = True
    return other.is_through() and is_free(lock)


def is_free(lock: Any) -> bool:
    """Whether another thread can take it, and nobody can release it once more."""
    found: list[bool] = []

    def ask() -> None:
        found.append(lock.acquire(timeout=0.2))
        if found[0]:
            lock.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(DEADLINE)
    if not found[0]:
        return False
    with pytest.raises(RuntimeError):
        lock.release()
    return True


Round = Callable[[Any, Handler], bool]
ROUNDS = [free, waited_for, due_when_it_is_let_in, wanted, released_by_hand]


def places_that_leave_it_locked(make: Callable[[], Any], one_round: Round, handler: Handler) -> tuple[list[int], int]:
    """Where a handler that raises leaves it locked, or is not heard of, by number; and how many places there were."""
    bad, place = [], 0
    while True:
        place += 1
        assert place < 2_000
        lock = make()
        handler.begin(place)
        good = one_round(lock, handler)
        if not good or handler.arrived is not handler.raised:
            bad.append(place)
        if not handler.raised:
            return bad, place - 1


@pytest.mark.parametrize("one_round", ROUNDS)
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_wherever_a_handler_raises_the_lock_is_free_afterwards(
    kind: str, one_round: Round, handler: Handler, portable: Portable
) -> None:
    bad, places = places_that_leave_it_locked(getattr(threading, kind), one_round, handler)
    assert places >= 1
    assert bad == []
    assert not portable.measures.is_waiting(threading.get_native_id())


class Naive:
    """As one would write it."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()

    def acquire(self, timeout: float = -1) -> bool:
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


@pytest.mark.parametrize("one_round", ROUNDS)
def test_one_written_in_python_is_not(one_round: Round, handler: Handler) -> None:
    bad, _ = places_that_leave_it_locked(Naive, one_round, handler)
    assert bad


def test_a_lock_is_released_if_its_wait_cannot_be_noted_any_more(
    portable: Portable, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = threading.get_ident()

    class NoMemory:
        def __neg__(self) -> int:
            if threading.get_ident() == here:
                raise MemoryError
            return time.monotonic_ns()

    lock = threading.Lock()
    portable.when_waiting(held(lock))
    monkeypatch.setattr(lock_ways, "CLOCK", NoMemory())
    with pytest.raises(MemoryError), lock:
        pass
    monkeypatch.undo()
    assert is_free(lock)
    assert not portable.measures.is_waiting(threading.get_native_id())


@pytest.mark.parametrize("timeout", [None, DEADLINE])
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_condition_whose_wait_a_handler_ends_has_its_lock_again_before(
    kind: str, timeout: float | None, handler: Handler, portable: Portable
) -> None:
    """Right after the wait, where the interpreter looks for signals after a call of C."""
    lock = getattr(threading, kind)()
    condition = threading.Condition(lock)

    def notifies() -> None:
        with condition:
            condition.notify()
            -handler  # type: ignore[operator]  # noqa: B018

    def waits() -> None:
        with condition:
            other.start()
            condition.wait(timeout)

    other = threading.Thread(target=notifies)
    handler.begin(1)
    with pytest.raises(Interrupted):
        waits()
    other.join(DEADLINE)
    assert is_free(lock)


def test_a_trace_function_that_raises_leaves_no_lock_locked(portable: Portable) -> None:
    """A debugger's, or one in which a handler runs. When it is told of a return it is too late: that is a limit."""
    events = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal events
        if frame.f_code is not Way.take.__code__ or event == "return":
            return None
        events += 1
        if events == raises_at:
            raise Interrupted
        return trace

    raises_at, raised = 0, True
    while raised:
        raises_at, events, raised = raises_at + 1, 0, False
        lock = threading.Lock()
        end = held(lock)
        timer = threading.Timer(0.05, end)
        timer.start()
        try:
            sys.settrace(trace)
            with lock:
                sys.settrace(None)
        except Interrupted:
            raised = True
        finally:
            sys.settrace(None)
        timer.join(DEADLINE)
        assert is_free(lock), raises_at
    assert raises_at > 8


@pytest.mark.parametrize("is_waited_for", [False, True])
@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_at_the_end_of_the_stack_it_is_not_entered_or_it_is_left(
    kind: str, by_hand: bool, is_waited_for: bool, portable: Portable
) -> None:
    lock, taken, left_locked, refused = getattr(threading, kind)(), [0], [0], [0]
    end = held(lock)
    lock.acquire(timeout=0.01)  # this thread's wait is over, and known
    end()
    if is_waited_for:
        for_ever = Wait()
        for_ever.log = portable.measures._notes.log
        lock._way.waits.add(for_ever)
        lock._way.note_releases()
    is_locked = lock._lock._is_owned if kind == "RLock" else lock._lock.locked

    def use() -> None:
        if by_hand:
            lock.acquire()
            taken[0] += 1
            lock.release()
        else:
            with lock:
                taken[0] += 1

    def dive() -> None:
        # Tried from every level up to the last one: nothing here may need one more.
        try:
            dive()
        except RecursionError:
            refused[0] += 1
        try:
            use()
        except RecursionError:
            refused[0] += 1
        if is_locked():
            left_locked[0] += 1
            lock._lock.release()

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 150)
    try:
        dive()
    finally:
        sys.setrecursionlimit(limit)
    assert taken[0] > 100
    assert refused[0]
    assert left_locked == [0]
    assert is_free(lock)


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_thousands_of_interrupts_at_random_leave_a_lock_free_and_exclusive(kind: str, portable: Portable) -> None:
    lock = getattr(threading, kind)()
    inside, seen_inside, stop = [0], [0], _thread.allocate_lock()
    interrupts = rounds = 0

    def one() -> None:
        with lock:
            inside[0] += 1
            seen_inside.append(inside[0])
            inside[0] -= 1

    def others() -> None:
        while not stop.locked():
            with lock:
                seen_inside.append(1 + inside[0])
                time.sleep(0.0001)
            time.sleep(0.0002)

    def handle(number: int, frame: FrameType | None) -> None:
        # Where `with` has not ended, and the counter is not being changed.
        if frame is not None and frame.f_code is not handle.__code__ and is_within(frame) and not inside[0]:
            raise Interrupted

    def is_within(frame: FrameType | None) -> bool:
        while frame is not None and frame.f_code is not one.__code__:
            frame = frame.f_back
        return frame is not None

    threads = [threading.Thread(target=others, daemon=True) for _ in range(2)]
    before = signal.signal(signal.SIGALRM, handle)
    for thread in threads:
        thread.start()
    give_up = time.monotonic() + DEADLINE
    try:
        while (interrupts < 3_000 or rounds <= 100) and time.monotonic() < give_up:
            try:
                # From before it has the lock to after it has gone, however fast the machine is; and again, if that
                # has left it locked.
                signal.setitimer(signal.ITIMER_REAL, 10 ** random.uniform(-5, -3), 0.05)
                one()
                rounds += 1
            except Interrupted:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        stop.acquire()
    assert interrupts >= 3_000
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert rounds > 100
    assert max(seen_inside) == 1
    assert is_free(lock)
