"""The portable engine: what is its own, beside what every engine promises."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest
from engine_kit import Heard, Worker, burn, look_until

from profiling_middleware.model import Reason
from profiling_middleware.sampling.clocks import OwnCpu, RunState, RunStates
from profiling_middleware.sampling.python import PythonEngine
from profiling_middleware.stacks import StackTable

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="exact only with Linux's clocks")


@pytest.fixture
def engine() -> Iterator[PythonEngine]:
    engine = PythonEngine(rate=100, max_overhead=1.0)
    yield engine
    engine.close()


def test_the_report_counts_the_cpu_time_whose_function_was_not_seen(engine: PythonEngine) -> None:
    pause = threading.Event()

    def short_bursts() -> None:
        for _ in range(60):
            burn(0.0005)
            pause.wait(0.002)

    heard, worker = Heard(), Worker("bursts", short_bursts)
    try:
        engine.attach(heard)
        before = engine.report()
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
        report = engine.report().since(before)
    finally:
        worker.join()

    not_placed = ("<not seen running>", "<thread ended between two looks>")
    assert report.not_placed_ns == sum(
        sample.cpu_ns for sample in heard.samples if sample.stack.frames[0].function in not_placed
    )


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="collects between two byte codes only")
def test_threads_are_read_while_nothing_is_collected(engine: PythonEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    take, collects = StackTable.take, list[bool]()

    def noting(table: StackTable, leaf: FrameType) -> object:
        collects.append(gc.get_threshold()[0] > 0)
        return take(table, leaf)

    monkeypatch.setattr(StackTable, "take", noting)
    worker = Worker("works", lambda: burn(0.05))
    try:
        engine.attach(Heard())
        worker.begin.set()
        look_until(engine, worker.done)
    finally:
        worker.join()
    assert set(collects) == {False}
    assert gc.isenabled()


def test_cpu_time_of_a_thread_that_is_gone_is_visible(engine: PythonEngine) -> None:
    heard, short = Heard(), Worker("short", lambda: burn(0.05), wait=False)
    engine.attach(heard)
    short.begin.set()
    short.thread.join(30)
    engine.look()
    engine.detach(heard)

    # The system may still know it for a moment after it was joined.
    seen = heard.cpu_ns("ended threads", "<thread ended between two looks>") + heard.cpu_ns("short")
    assert seen == pytest.approx(short.used, rel=0.1, abs=5e6)


def test_the_sampling_itself_is_visible_and_is_what_the_report_says(engine: PythonEngine) -> None:
    heard = Heard()
    engine.attach(heard)
    before = engine.report()
    for _ in range(200):
        engine.look()
    engine.detach(heard)
    report = engine.report().since(before)

    own = heard.cpu_ns(function="<profiling_middleware sampling>")
    assert own == pytest.approx(report.cpu_ns, rel=0.2, abs=1_000_000)
    assert report.looks >= 200


def test_the_pauses_between_looks_are_those_of_the_rate_and_not_in_step() -> None:
    engine = PythonEngine(rate=50, max_overhead=1.0)
    engine.attach(Heard())
    pauses = [engine.look() for _ in range(200)]
    engine.close()

    assert all(0.5 / 50 <= pause <= 1.5 / 50 for pause in pauses)
    assert sum(pauses) / len(pauses) == pytest.approx(1 / 50, rel=0.1)
    assert len({round(pause, 6) for pause in pauses}) > 100


def test_who_only_hears_of_waits_needs_fewer_looks() -> None:
    engine, waits, work = PythonEngine(rate=100, max_overhead=1.0), Heard(wants_waits=True), Heard()
    waits.hears_work = False
    engine.attach(waits)
    assert 0.02 < engine.look() < 0.08
    assert engine.rate_used == 20

    engine.attach(work)
    engine.look()
    assert engine.rate_used == 100
    engine.close()


@pytest.mark.parametrize(("look_ns", "pause"), [(200_000, 0.02), (50_000, 0.005), (5_000, 0.001)])
def test_looks_become_rarer_when_they_would_cost_more_than_allowed(
    look_ns: int, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = 0
    monkeypatch.setattr(OwnCpu, "total_ns", lambda self: used)
    engine = PythonEngine(rate=1000, max_overhead=0.01)
    engine.attach(Heard())
    pauses: list[float] = []
    for _ in range(300):
        used += look_ns
        pauses.append(engine.look())
    engine.close()

    # The cost is known by its running mean, each pause is somewhere around what is due.
    assert sum(pauses[100:]) / len(pauses[100:]) == pytest.approx(pause, rel=0.15)


def test_what_else_the_timers_thread_does_makes_looks_no_rarer() -> None:
    """The end of a capture is work, too: those that go on must not lose their looks for it."""
    engine = PythonEngine(rate=100, max_overhead=0.01)
    engine.attach(Heard())
    for _ in range(20):
        engine.look()

    burn(0.05)
    after = [engine.look() for _ in range(20)]
    engine.close()

    assert max(after) < 0.05


def test_a_thread_that_has_just_been_woken_is_not_taken_for_working_where_it_waited(
    engine: PythonEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, locks, woken = Heard(), [threading.Lock(), threading.Lock()], threading.Event()
    for lock in locks:
        lock.acquire()

    def work_and_wait() -> None:
        for lock in locks:
            burn(0.03)
            woken.set()
            lock.acquire(timeout=30)

    def until_it_waits() -> None:
        assert woken.wait(30)
        woken.clear()
        give_up = time.monotonic() + 30
        # Not in Event.set(), which may wait as well.
        while sys._current_frames()[worker.ident or 0].f_code is not work_and_wait.__code__:
            assert time.monotonic() < give_up
        while RunStates().of(worker.native_id or 0) is not RunState.WAITING:
            assert time.monotonic() < give_up

    worker = threading.Thread(target=work_and_wait, name="worker")
    try:
        engine.attach(heard)  # before it works: a thread that has not run since is not looked at
        worker.start()
        until_it_waits()
        engine.look()
        locks[0].release()
        until_it_waits()
        # As if the second wait had just ended, and the GIL were not there yet.
        monkeypatch.setattr(RunStates, "of", lambda self, native_id: RunState.ABLE)
        engine.look()
        engine.detach(heard)
    finally:
        for lock in locks:
            if lock.locked():
                lock.release()
        worker.join(30)

    leaves = {sample.stack.frames[0].function for sample in heard.samples if sample.cpu_ns > 10_000_000}
    assert not any(leaf.endswith("work_and_wait") for leaf in leaves)


def test_a_thread_about_to_go_on_after_a_measured_wait_has_not_waited_there_untold(
    engine: PythonEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard(wants_waits=True)
    heard.hears_waits = True
    engine.attach(heard)
    lock, begun = threading.Lock(), threading.Semaphore(0)
    lock.acquire()

    def sleep_and_wait() -> None:
        for _ in range(2):
            burn(0.001)
            time.sleep(0.05)
            begun.release()
            burn(0.001)
            lock.acquire()

    def until_it_waits() -> None:
        assert begun.acquire(timeout=30)
        give_up = time.monotonic() + 30
        while not engine._locks.is_waiting(worker.native_id or 0):
            assert time.monotonic() < give_up
        while RunStates().of(worker.native_id or 0) is not RunState.WAITING:
            assert time.monotonic() < give_up

    worker = threading.Thread(target=sleep_and_wait, name="worker", daemon=True)
    try:
        worker.start()
        until_it_waits()
        engine.look()
        lock.release()
        until_it_waits()
        # As if the second wait had just ended, and the GIL were not there yet.
        with monkeypatch.context() as patched:
            patched.setattr(RunStates, "of", lambda self, native_id: RunState.ABLE)
            engine.look()
        engine.detach(heard)
    finally:
        lock.release()
        worker.join(30)

    untold = sum(
        sample.wall_ns - sample.cpu_ns - sample.lock_ns
        for sample in heard.samples
        if sample.thread.name == "worker" and not sample.moving and sample.reason is not Reason.MEASURED
    )
    assert untold < 10_000_000


def test_a_thread_that_went_on_while_it_was_read_is_read_again(
    engine: PythonEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it waits for from now on would stand where it waited before, until it goes on once more."""
    take, failures = StackTable.take, 2

    def moved(table: StackTable, leaf: FrameType) -> object:
        nonlocal failures
        if leaf.f_code is work_and_wait.__code__ and failures:
            failures -= 1
            return None
        return take(table, leaf)

    def work_and_wait() -> None:
        burn(0.01)
        begun.set()
        go_on.acquire(timeout=30)

    heard, begun, go_on = Heard(), threading.Event(), threading.Lock()
    go_on.acquire()
    worker = threading.Thread(target=work_and_wait, name="worker")
    try:
        engine.attach(heard)
        worker.start()
        engine.look()
        assert begun.wait(30)
        while sys._current_frames()[worker.ident or 0].f_code is not work_and_wait.__code__:
            pass
        monkeypatch.setattr(StackTable, "take", moved)
        lost = engine.report().lost_stacks
        engine.look()
        assert engine.report().lost_stacks == lost
        assert failures == 0
    finally:
        go_on.release()
        worker.join(30)
