"""Observing the interpreter's own locks: which ones, in a forked child, and how much is kept."""

from __future__ import annotations

import _thread
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lock_kit import held

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


def waits(native: Any) -> float:
    """How many waits were recorded since this was asked last."""
    return float(sum(times for is_release, _, _, _, times, _, _, _ in contentions(native) if not is_release))


def contentions(native: Any) -> list[tuple[Any, ...]]:
    """The fields of each that was recorded since this was asked last."""
    return list(zip(*[iter(native.drain()[4])] * 8, strict=True))


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


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_observed_or_not_locks_have_one_type(native: Any, make: Callable[[], object]) -> None:
    observed = make()
    native.leave_locks()
    assert type(make()) is type(observed)


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
    found = list(zip(*[iter(_native.drain()[4])] * 8))
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


SLOTS = 8_192
"""Of csrc/waiters.c."""


def slot_of(lock: object) -> int:
    """Where it is looked for first."""
    return ((id(lock) >> 4) * 0x9E3779B97F4A7C15 % (1 << 64) >> 40) % SLOTS


def test_waits_for_locks_that_want_the_same_place_are_told_apart(native: Any) -> None:
    """They end in another order than they began in, and some begin where others have just ended."""
    locks = sorted((threading.Lock() for _ in range(20_000)), key=slot_of)
    begin = max(range(len(locks) - 16), key=lambda first: slot_of(locks[first]) - slot_of(locks[first + 15]))
    crowded = locks[begin : begin + 16]
    assert slot_of(crowded[-1]) - slot_of(crowded[0]) < 16
    random.Random(1).shuffle(crowded)
    waited: dict[int, float] = {}

    def wait(lock: Any) -> None:
        began = time.monotonic_ns()
        lock.acquire()
        waited[threading.get_native_id()] = time.monotonic_ns() - began

    for _ in range(2):
        waits(native)
        waited.clear()
        threads = [threading.Thread(target=wait, args=(lock,)) for lock in crowded]
        for lock in crowded:
            lock.acquire()
        for thread in threads:
            thread.start()
            time.sleep(0.002)
        for lock in random.Random(2).sample(crowded, len(crowded)):
            lock.release()
        for thread in threads:
            thread.join()
        for lock in crowded:
            lock.release()
        native.discover(0)
        found = contentions(native)
        alone = [delay for is_release, _, _, _, times, delay, _, _ in found if not is_release and delay > 1e6]
        ended = [delay for is_release, _, _, _, times, delay, _, _ in found if is_release and delay > 1e6]
        assert sum(alone) == pytest.approx(sum(waited.values()), rel=0.05)
        assert sum(ended) == pytest.approx(sum(waited.values()), rel=0.05)


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

    recorded = contentions(native)
    assert len(recorded) <= 3_073
    assert native.contention_totals()[2] > before
    assert sum(times for is_release, _, _, _, times, _, _, _ in recorded if not is_release) >= 4_900
