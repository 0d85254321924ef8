"""Long waits for locks, told one by one: which ones, when, how long, where, for whom, and whose release ended them."""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from engine_kit import DEADLINE, Heard, look_until
from lock_kit import fill_the_table, held

from profiling_middleware.config import Settings
from profiling_middleware.labels import CURRENT
from profiling_middleware.model import Contention, Label, Reason
from profiling_middleware.sampling import make_label_maker
from profiling_middleware.sampling.engine import Engine

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="exact only with Linux's clocks")

MS = 1_000_000
HELD_SECONDS, ROUNDS = 0.03, 5
LEEWAY_NS = 10 * MS
LABELS = (Label("endpoint", "/pay"),)


class Contended:
    """One thread holds a lock several times, and another one waits for it each time; it knows by its clock how long."""

    def __init__(self, lock: Any) -> None:
        self.waited: list[tuple[int, int]] = []
        self.done = threading.Event()
        self._lock = lock
        self._held, self._wanted, self._over = (threading.Semaphore(0) for _ in range(3))
        self._threads = [threading.Thread(target=work, name=work.__name__) for work in (self.holds, self.waits)]

    def holds(self) -> None:
        for _ in range(ROUNDS):
            self._lock.acquire()
            self._held.release()
            self._wanted.acquire()
            time.sleep(HELD_SECONDS)
            self._lock.release()
            self._over.acquire()

    def waits(self) -> None:
        make = make_label_maker(Settings())
        if make is not None:
            CURRENT.set(make(lambda labels: labels, LABELS))
        for _ in range(ROUNDS):
            self._held.acquire()
            self._wanted.release()
            began = time.monotonic_ns()
            self._lock.acquire()
            self.waited.append((began, time.monotonic_ns()))
            self._lock.release()
            self._over.release()
        self.done.set()

    def run(self, engine: Engine) -> None:
        """Returns when it is over; the engine looks meanwhile."""
        for thread in self._threads:
            thread.start()
        look_until(engine, self.done)
        for thread in self._threads:
            thread.join(DEADLINE)


def line_of(function: Callable[..., object], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def told(heard: Heard, function: str) -> list[Contention]:
    """The waits in this function itself: the tests' own events and semaphores are waited for, too."""
    return [wait for wait in heard.lock_waits if wait.stack.frames[0].function.endswith(function)]


def waits_in_vain(lock: Any, seconds: float) -> None:
    assert lock.acquire(timeout=seconds) is False


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_each_wait_is_told_once_when_and_where_it_was(engine: Engine, kind: str) -> None:
    engine.attach(heard := Heard(wait_moments_ns=10 * MS))
    # Not before: the portable engine measures locks that are made meanwhile.
    contended = Contended(getattr(threading, kind)())
    contended.run(engine)
    engine.detach(heard)

    waits = told(heard, ".Contended.waits")
    assert len(waits) == len(contended.waited) == ROUNDS
    for wait, (began, ended) in zip(waits, contended.waited, strict=True):
        assert began <= wait.time_ns - int(wait.delay_ns) <= wait.time_ns <= ended
        assert wait.delay_ns >= ended - began - LEEWAY_NS
        assert wait.delay_ns >= HELD_SECONDS * 1e9 - LEEWAY_NS
        assert wait.stack.frames[0].line == line_of(Contended.waits, "_lock.acquire()")
        # Without the extension nothing is labelled.
        assert (wait.thread.name, wait.labels) == ("waits", LABELS if make_label_maker(Settings()) is not None else ())
        assert wait.holder is not None
        assert wait.holder.name == "holds"
        assert (wait.waiter, wait.times, wait.reason) == (None, 1, Reason.LOCK)


def test_each_listener_hears_what_it_has_asked_for(engine: Engine) -> None:
    all_, some, no = Heard(wait_moments_ns=10 * MS), Heard(wait_moments_ns=1_000 * MS), Heard()
    for listener in (some, no, all_):
        engine.attach(listener)
    Contended(threading.Lock()).run(engine)
    lock = threading.Lock()
    lock.acquire()
    waits_in_vain(lock, 1.05)
    for listener in (some, no, all_):
        engine.detach(listener)

    assert len(told(all_, ".Contended.waits")) == ROUNDS
    assert told(some, ".Contended.waits") == []
    # The second is there only if it was handed out when the first to ask for it left.
    assert [len(told(listener, ".waits_in_vain")) for listener in (all_, some)] == [1, 1]
    assert no.lock_waits == []


def test_what_is_shorter_than_anybody_wants_is_not_noted(native_engine: Engine) -> None:
    from profiling_middleware.sampling import _native

    lock = threading.Lock()
    lock.acquire()
    native_engine.attach(Heard(wait_moments_ns=100 * MS))
    waits_in_vain(lock, 0.02)
    assert _native.drain()[5] == []
    native_engine.attach(Heard(wait_moments_ns=10 * MS))
    waits_in_vain(lock, 0.02)
    assert len(_native.drain()[5]) == 1


def test_nothing_is_noted_when_nobody_asks(native_engine: Engine) -> None:
    from profiling_middleware.sampling import _native

    def noted() -> int:
        lock = threading.Lock()
        lock.acquire()
        assert _native.observe_locks()
        waits_in_vain(lock, 0.02)
        return len(_native.drain()[5])

    asks, other = Heard(wait_moments_ns=1 * MS), Heard()
    native_engine.attach(other)
    before = noted()
    native_engine.attach(asks)
    meanwhile = noted()
    native_engine.detach(asks)
    assert (before, meanwhile, noted()) == (0, 1, 0)
    native_engine.attach(asks)
    native_engine.close()
    assert noted() == 0
    _native.leave_locks()


def test_who_asks_for_moments_only_has_locks_observed_and_nothing_summed(native_engine: Engine) -> None:
    from profiling_middleware.sampling import _native

    native_engine.set_wait_rates(1, 1)
    before = _native.contention_totals()[:2]
    native_engine.attach(heard := Heard(wait_moments_ns=10 * MS))
    contended = Contended(threading.Lock())
    contended.run(native_engine)
    native_engine.detach(heard)

    assert len(told(heard, ".Contended.waits")) == ROUNDS
    assert _native.contention_totals()[:2] == before


def test_a_wait_in_vain_is_told_and_nobody_has_ended_it(engine: Engine) -> None:
    engine.attach(heard := Heard(wait_moments_ns=10 * MS))
    lock, got = threading.Lock(), []
    lock.acquire()

    def gives_up() -> None:
        got.append(lock.acquire(timeout=0.04))

    # A release is for whoever comes first: mostly for this thread, which does not have to be woken.
    for _ in range(100):
        thread = threading.Thread(target=gives_up)
        thread.start()
        time.sleep(0.02)
        lock.release()
        again = lock.acquire(blocking=False)
        thread.join(DEADLINE)
        if again:
            break
    engine.detach(heard)

    wait = told(heard, ".gives_up")[-1]
    assert got[-1] is False
    assert wait.holder is None
    assert wait.delay_ns == pytest.approx(40 * MS, abs=LEEWAY_NS)


def test_what_finds_no_room_is_counted(engine: Engine) -> None:
    sentence = " long waits for locks are left out since the process started: there was no room for them"

    def untold() -> int:
        said = [limit for limit in engine.limits if limit.endswith(sentence)]
        return int(said[0].split()[0]) if said else 0

    engine.attach(heard := Heard(wait_moments_ns=1))
    lock = threading.Lock()
    lock.acquire()
    before = untold()
    for _ in range(2_100):
        waits_in_vain(lock, 0.00002)
    engine.flush()

    assert len(heard.lock_waits) == 2_048
    assert untold() - before == 2_100 - 2_048
    waits_in_vain(lock, 0.00002)
    engine.flush()
    assert len(heard.lock_waits) == 2_049
    engine.attach(other := Heard())
    engine.detach(heard)
    assert untold() == 0
    engine.detach(other)


def test_a_wait_is_where_it_was_when_the_numbers_of_stacks_have_begun_anew(native_engine: Engine) -> None:
    """Whether it is told with an old number, or began with an old one and ended with a new one."""
    lock, goes_on = threading.Lock(), threading.Event()
    end = held(lock)

    def waits_long() -> None:
        goes_on.set()
        with lock:
            pass

    heard = Heard(wait_moments_ns=10 * MS)
    heard.hears_waits = True  # stacks are taken as waits begin: a release may need them
    native_engine.attach(heard)
    long = threading.Thread(target=waits_long)
    long.start()
    assert goes_on.wait(DEADLINE)
    clears, turns = native_engine.report().table_clears, 0
    # They begin anew once nothing new has come since the last time.
    while native_engine.report().table_clears == clears:
        assert turns < 100
        waits_in_vain(lock, 0.02)
        if turns == 0:
            fill_the_table(lock)
        native_engine.look()
        turns += 1
    end()
    long.join(DEADLINE)
    native_engine.detach(heard)

    short, (long_one,) = told(heard, ".waits_in_vain"), told(heard, ".waits_long")
    assert len(short) == turns
    assert len({wait.stack.frames for wait in short}) == 1
    assert short[-1].stack.frames[0].line == line_of(waits_in_vain, "lock.acquire")
    assert long_one.stack.frames[0].line == line_of(waits_long, "with lock")
    assert long_one.delay_ns > 20 * MS
