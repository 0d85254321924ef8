"""The interpreter's locks stay locks while they are observed, in everything that a program can ask of one."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine_kit import DEADLINE

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def native(need_native: Callable[[], None]) -> Iterator[Any]:
    """The extension, observing."""
    need_native()
    from profiling_middleware.sampling import _native

    assert _native.observe_locks()
    _native.set_contention_rates(1, 1)
    _native.clear()
    yield _native
    _native.leave_locks()
    _native.clear()


@pytest.fixture(params=[threading.Lock, threading.RLock], ids=["Lock", "RLock"])
def lock(request: pytest.FixtureRequest, native: Any) -> Any:
    return request.param()


def waits(native: Any) -> float:
    """How many waits were recorded since this was asked last."""
    return float(sum(times for is_release, _, _, _, times, _, _, _ in native.drain()[4] if not is_release))


def held(lock: Any) -> Callable[[], None]:
    """Another thread holds the lock until this is called."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        lock.acquire()
        taken.set()
        done.wait(DEADLINE)
        lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(DEADLINE)

    def end() -> None:
        done.set()
        thread.join(DEADLINE)

    return end


def test_it_is_taken_and_released(lock: Any, native: Any) -> None:
    waits(native)
    for _ in range(3):
        assert lock.acquire() is True
        lock.release()
        with lock as entered:
            assert entered is True
        assert lock.acquire(True, 1.0) is True
        lock.release()
        assert lock.acquire(blocking=False) is True
        lock.release()
    assert waits(native) == 0


def test_a_lock_says_whether_it_is_locked(native: Any) -> None:
    lock = threading.Lock()
    assert lock.locked() is False
    with lock:
        assert lock.locked() is True
        assert "locked" in repr(lock)
        assert lock.acquire(False) is False
    assert lock.locked() is False
    assert repr(lock).startswith("<unlocked _thread.lock object at ")


def test_an_rlock_is_taken_again_by_its_owner_only(native: Any) -> None:
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


def test_a_wait_that_times_out_is_a_wait(lock: Any, native: Any) -> None:
    end = held(lock)
    waits(native)
    began = time.monotonic()
    assert lock.acquire(timeout=0.05) is False
    assert time.monotonic() - began >= 0.045
    assert lock.acquire(True, 0.05) is False
    assert waits(native) == 2
    assert lock.acquire(False) is False
    assert lock.acquire(blocking=0) is False
    assert waits(native) == 0
    end()


def test_a_method_that_was_taken_earlier_is_observed(native: Any) -> None:
    native.leave_locks()
    lock = _thread.allocate_lock()
    acquire = lock.acquire
    native.observe_locks()
    end = held(lock)
    waits(native)
    assert acquire(timeout=0.02) is False
    assert waits(native) == 1
    end()


def test_it_has_the_same_type_and_can_be_referred_to_weakly(lock: Any, native: Any) -> None:
    kind, reference = type(lock), weakref.ref(lock)
    native.leave_locks()
    assert type(threading.Lock()) is kind or type(threading.RLock()) is kind
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
    poke = threading.Thread(target=lambda: [(time.sleep(0.05), os.kill(os.getpid(), signal.SIGUSR1)) for _ in range(2)])
    poke.start()
    try:
        with pytest.raises(InterruptedError):
            lock.acquire()
    finally:
        poke.join()
        signal.signal(signal.SIGUSR1, before)
        end()
    assert len(seen) == 2
    assert lock.acquire(timeout=1.0) is True
    lock.release()


def test_a_handler_may_wait_for_a_lock_while_its_thread_waits_for_one(lock: Any, native: Any) -> None:
    end, other = held(lock), threading.Lock()
    other.acquire()

    def handle(number: int, frame: object) -> None:
        other.acquire(timeout=0.05)

    before = signal.signal(signal.SIGUSR1, handle)
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
    waits(native)
    try:
        assert lock.acquire(timeout=0.3) is False
    finally:
        signal.signal(signal.SIGUSR1, before)
        end()
    assert waits(native) >= 2


def test_conditions_wait_and_are_notified(native: Any) -> None:
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


def test_observing_begins_and_ends_while_threads_wait(native: Any) -> None:
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
        native.leave_locks()
        time.sleep(0.0005)
        native.observe_locks()
        time.sleep(0.0005)
        native.drain()
    stop.set()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert all(counts)


def test_a_forked_child_begins_with_no_waits(native: Any, run_python: RunPython) -> None:
    ran = run_python(
        """
import os, threading, time
from profiling_middleware.sampling import _native
assert _native.observe_locks()
_native.set_contention_rates(1, 1)
lock = threading.Lock()
lock.acquire()
threads = [threading.Thread(target=lock.acquire, kwargs={"timeout": 1}, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
time.sleep(0.2)
child = os.fork()
if child == 0:
    lock._at_fork_reinit()
    with lock:
        pass
    _native.clear()
    begun = time.monotonic()
    lock.acquire()
    assert lock.acquire(timeout=0.05) is False
    lock.release()
    found = _native.drain()[4]
    waits = [(times, delay) for is_release, _, _, _, times, delay, _, _ in found if not is_release]
    assert len(waits) == 1 and 40e6 < waits[0][1] < 1e9, found
    assert not [one for one in found if one[0]], found
    os._exit(0)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
""",
        options=("-W", "ignore::DeprecationWarning"),
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("0\n", "", 0)


def test_what_was_summed_is_bounded(native: Any) -> None:
    """More stacks than there is room for: the rest is in the sum of those without one."""
    lock = threading.Lock()
    before = native.contention_totals()[2]
    lock.acquire()
    for number in range(5_000):
        scope: dict[str, Any] = {"lock": lock}
        exec(
            compile("\n" * number + "def f(): lock.acquire(timeout=0.000003)\nf()", f"made_{number % 10}", "exec"),
            scope,
        )
    lock.release()

    recorded = native.drain()[4]
    assert len(recorded) <= 3_073
    assert native.contention_totals()[2] > before
    assert sum(times for is_release, _, _, _, times, _, _, _ in recorded if not is_release) >= 4_900
