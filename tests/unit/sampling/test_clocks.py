"""What Linux tells a process about its threads."""

from __future__ import annotations

import _thread
import os
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import pytest

from profiling_middleware.sampling.clocks import (
    OwnCpu,
    RunState,
    RunStates,
    ThreadClocks,
    native_thread_ids,
    native_thread_name,
)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="these clocks are Linux's")


def burn(seconds: float) -> None:
    """Uses that much CPU time on the calling thread."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


class Helper:
    """A thread that waits until it is told to go on, and until then does nothing."""

    def __init__(self, work: Callable[[], object] = lambda: None) -> None:
        self.ready, self._go_on = threading.Event(), threading.Event()
        self._work = work
        self.thread = threading.Thread(target=self._run, name="helper")
        self.thread.start()
        assert self.ready.wait(10)

    def _run(self) -> None:
        self._work()
        self.ready.set()
        self._go_on.wait(10)

    def end(self) -> None:
        self._go_on.set()
        self.thread.join(10)


@pytest.fixture
def helper() -> Iterator[Helper]:
    helper = Helper()
    yield helper
    helper.end()


# -- clocks -----------------------------------------------------------------------------------------------------------


def test_the_clock_of_a_thread_is_its_own_cpu_time() -> None:
    before = time.thread_time_ns()
    seen = ThreadClocks.cpu_ns(threading.get_native_id())
    after = time.thread_time_ns()

    assert seen is not None
    assert before <= seen <= after


def test_the_clock_of_another_thread_is_what_it_used() -> None:
    used: list[int] = []
    helper = Helper(lambda: (burn(0.05), used.append(time.thread_time_ns())))
    try:
        native_id = helper.thread.native_id
        assert native_id is not None
        seen = ThreadClocks.cpu_ns(native_id)
        assert seen is not None
        assert used[0] <= seen < used[0] + 5_000_000
    finally:
        helper.end()


def test_the_clock_of_a_thread_that_waits_stands_still(helper: Helper) -> None:
    native_id = helper.thread.native_id
    assert native_id is not None
    states = RunStates()
    while states.of(native_id) is RunState.ABLE:
        pass
    states.close()

    before = ThreadClocks.cpu_ns(native_id)
    burn(0.02)

    assert ThreadClocks.cpu_ns(native_id) == before


def test_a_thread_that_has_ended_has_no_clock() -> None:
    helper = Helper()
    native_id = helper.thread.native_id
    assert native_id is not None
    helper.end()
    give_up = time.monotonic() + 10
    while native_id in native_thread_ids() and time.monotonic() < give_up:
        pass

    assert ThreadClocks.cpu_ns(native_id) is None


def test_a_number_that_is_no_thread_has_no_clock() -> None:
    assert ThreadClocks.cpu_ns(2**22 + 1) is None


def test_linux_has_these_clocks() -> None:
    assert ThreadClocks.available()


# -- native ids -------------------------------------------------------------------------------------------------------


def test_the_native_id_of_a_thread_is_the_one_it_knows_itself(helper: Helper) -> None:
    clocks = ThreadClocks()

    assert clocks.native_id(threading.get_ident()) == threading.get_native_id()
    assert helper.thread.ident is not None
    assert clocks.native_id(helper.thread.ident) == helper.thread.native_id


def test_a_thread_that_threading_did_not_start_has_its_native_id_too() -> None:
    clocks = ThreadClocks()
    told: list[tuple[int, int]] = []
    begun, go_on = _thread.allocate_lock(), _thread.allocate_lock()
    begun.acquire()
    go_on.acquire()

    def run() -> None:
        told.append((_thread.get_ident(), _thread.get_native_id()))
        begun.release()
        go_on.acquire(timeout=10)

    _thread.start_new_thread(run, ())
    assert begun.acquire(timeout=10)
    try:
        ident, native_id = told[0]
        assert clocks.native_id(ident) == native_id
    finally:
        go_on.release()


def test_an_address_that_is_no_thread_has_no_native_id() -> None:
    clocks = ThreadClocks()

    assert clocks.native_id(8) is None
    assert clocks.native_id(2**63 - 8) is None


def test_all_threads_of_the_process_are_listed(helper: Helper) -> None:
    listed = native_thread_ids()

    assert threading.get_native_id() in listed
    assert helper.thread.native_id in listed


def test_the_system_knows_the_name_of_the_main_thread() -> None:
    name = native_thread_name(os.getpid())

    assert name
    assert name != str(os.getpid())


def test_a_thread_that_has_no_name_any_more_is_called_by_its_number() -> None:
    assert native_thread_name(2**22 + 1) == str(2**22 + 1)


# -- the sampler's own CPU time ---------------------------------------------------------------------------------------


def test_the_own_cpu_time_counts_from_the_first_question() -> None:
    own = OwnCpu()
    first = own.total_ns()

    burn(0.02)

    assert first == 0
    assert 20_000_000 <= own.total_ns() < 30_000_000


def test_the_own_cpu_time_goes_on_when_another_thread_takes_over() -> None:
    """As after a fork: the timer's thread ended and a new one, often with the same ident, goes on."""
    own, totals = OwnCpu(), []

    def look() -> None:
        own.total_ns()
        burn(0.02)
        totals.append(own.total_ns())

    for _ in range(4):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(10)

    for number, total in enumerate(totals, start=1):
        assert number * 20_000_000 <= total < number * 20_000_000 + 10_000_000


# -- who is running ---------------------------------------------------------------------------------------------------


@pytest.fixture
def states() -> Iterator[RunStates]:
    states = RunStates()
    if not states.available:
        pytest.skip("/proc/self/task/TID/syscall cannot be read here")
    yield states
    states.close()


def test_a_thread_that_works_without_the_gil_is_running(states: RunStates) -> None:
    stop, data = threading.Event(), os.urandom(1_000_000)

    def work() -> None:
        while not stop.is_set():
            zlib.compress(data, 9)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        native_id = worker.native_id
        assert native_id is not None
        seen = [states.of(native_id) for _ in range(2000)]
    finally:
        stop.set()
        worker.join(10)

    assert seen.count(RunState.ABLE) > 1900


def test_a_thread_that_waits_for_a_lock_is_not_running(states: RunStates, helper: Helper) -> None:
    native_id = helper.thread.native_id
    assert native_id is not None
    give_up = time.monotonic() + 10
    while states.of(native_id) is RunState.ABLE and time.monotonic() < give_up:
        pass

    assert states.of(native_id) is RunState.WAITING


def test_a_thread_that_waits_for_the_gil_counts_as_running(states: RunStates) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            sum(range(1000))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        native_id = worker.native_id
        assert native_id is not None
        # This thread has the GIL whenever it asks, so the other one waits for it.
        seen, until = [], time.thread_time() + 0.1
        while time.thread_time() < until:
            seen.append(states.of(native_id))
    finally:
        stop.set()
        worker.join(10)

    assert seen.count(RunState.ABLE) > 0.9 * len(seen)


def test_a_thread_that_has_ended_is_unknown(states: RunStates) -> None:
    helper = Helper()
    native_id = helper.thread.native_id
    assert native_id is not None
    states.of(native_id)
    helper.end()
    give_up = time.monotonic() + 10
    while native_id in native_thread_ids() and time.monotonic() < give_up:
        pass

    assert states.of(native_id) is RunState.UNKNOWN


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing opens one itself either way


def test_no_descriptor_stays_open_after_close() -> None:
    helpers = [Helper() for _ in range(5)]
    before = open_descriptors()
    states = RunStates()
    try:
        for helper in helpers:
            assert helper.thread.native_id is not None
            states.of(helper.thread.native_id)
    finally:
        states.close()
        for helper in helpers:
            helper.end()

    assert open_descriptors() == before


def test_a_bounded_number_of_descriptors_is_kept(states: RunStates) -> None:
    helpers = [Helper() for _ in range(140)]
    before = open_descriptors()
    try:
        for helper in helpers:
            assert helper.thread.native_id is not None
            states.of(helper.thread.native_id)
        assert open_descriptors() - before <= 128
    finally:
        for helper in helpers:
            helper.end()
