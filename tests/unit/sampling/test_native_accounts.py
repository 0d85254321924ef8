"""What the native engine says of its own cost, and of threads that come while it looks."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from engine_kit import DEADLINE, Heard, Worker, burn, look_until

from profiling_middleware.sampling.engine import Engine
from profiling_middleware.threads import wait_until_gone

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the native engine is Linux's")


class Burner:
    """A thread that works until the test is over."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            burn(0.001)

    def end(self) -> None:
        self._end.set()
        self._thread.join(DEADLINE)


@pytest.fixture
def burner() -> Iterator[Burner]:
    burner = Burner()
    yield burner
    burner.end()


def wait_for_looks(engine: Engine, count: int) -> None:
    """Returns once the engine's own thread has looked that often.

    It waits and does not work meanwhile, because the CPU time of the thread that calls the engine is the engine's, too.
    """
    before, pause, give_up = engine.report().looks, threading.Event(), time.monotonic() + DEADLINE
    while engine.report().looks < before + count:
        assert time.monotonic() < give_up
        pause.wait(0.01)


def nothing_negative(heard: Heard) -> bool:
    return all(sample.cpu_ns >= 0 and sample.wall_ns >= 0 for sample in heard.samples)


@pytest.mark.usefixtures("burner")
def test_the_cost_grows_from_one_capture_to_the_next(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine("polling", sample_rate=1000)
    engine.attach(long := Heard(wants_waits=True))
    wait_for_looks(engine, 300)
    engine.detach(long)

    before = engine.report()
    engine.attach(short := Heard(wants_waits=True))
    wait_for_looks(engine, 3)
    engine.detach(short)

    assert engine.report().since(before).cpu_ns > 0
    assert nothing_negative(short)


@pytest.mark.usefixtures("burner")
def test_the_cost_goes_on_growing_when_a_fork_has_passed(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine("polling", sample_rate=1000)
    engine.attach(heard := Heard(wants_waits=True))
    wait_for_looks(engine, 300)
    before = engine.report()
    engine.pause()
    engine.resume()
    wait_for_looks(engine, 3)
    after = engine.report()
    engine.detach(heard)

    assert after.since(before).cpu_ns > 0
    assert nothing_negative(heard)


def test_a_thread_that_has_ended_when_the_capture_ends_is_counted_once(native_engine: Engine) -> None:
    heard, worker = Heard(), Worker("short", lambda: burn(0.3), wait=False)
    before = time.process_time_ns()
    native_engine.attach(heard)
    worker.begin.set()
    look_until(native_engine, worker.done)
    wait_until_gone(worker.thread, DEADLINE)
    native_engine.detach(heard)
    used = time.process_time_ns() - before

    assert heard.cpu_ns() == pytest.approx(used, rel=0.03, abs=5_000_000)


def test_a_thread_that_comes_and_only_waits_is_seen_where_it_waits(native_engine: Engine) -> None:
    native_engine.attach(heard := Heard(wants_waits=True))
    native_engine.look()
    before = time.monotonic_ns()
    late, burner = Worker("latecomer", lambda: None), Worker("burner", lambda: burn(0.3))
    try:
        late.begin.set()
        assert late.done.wait(DEADLINE)
        burner.begin.set()
        look_until(native_engine, burner.done)
        native_engine.detach(heard)
        passed = time.monotonic_ns() - before
    finally:
        late.join()
        burner.join()

    assert heard.wall_ns("latecomer", ".waits_for_the_end") >= passed - 200_000_000


def test_a_stack_has_the_time_at_which_it_was_read(native_engine: Engine) -> None:
    """Not that at which the look began: it may go on for long, and others move meanwhile."""
    names = {f"worker-{number}" for number in range(20)}
    workers = [Worker(name, lambda: None) for name in sorted(names)]
    for worker in workers:
        worker.begin.set()
        assert worker.done.wait(DEADLINE)
    native_engine.look()
    # The first look is at everybody.
    native_engine.attach(heard := Heard(wants_waits=True))
    wait_for_looks(native_engine, 1)
    native_engine.detach(heard)
    for worker in workers:
        worker.join()
    first = {sample.thread.name: sample.time_ns for sample in reversed(heard.samples)}
    times = [first[name] for name in names]
    assert len(set(times)) == len(times)


def test_who_lives_at_a_look_has_its_name_also_if_it_was_not_seen_beginning(native_engine: Engine) -> None:
    """A thread that begins while another one is being looked at is not enlisted: nobody waits for that."""
    native_engine.attach(heard := Heard())
    threading.get_native_id = _thread.get_native_id
    worker = Worker("unnoticed", lambda: burn(0.1), wait=False)
    native_engine.look()
    worker.begin.set()
    assert worker.done.wait(DEADLINE)
    wait_until_gone(worker.thread, DEADLINE)
    native_engine.detach(heard)

    assert heard.cpu_ns("unnoticed") >= 0.5 * worker.used


def test_no_thread_has_waited_longer_than_the_capture_lasted(open_engine: Callable[..., Engine]) -> None:
    """Looks of the engine's own thread and beginnings of captures get in each other's way all the time."""
    engine, leave = open_engine("polling", sample_rate=1000), threading.Event()
    crowd = [threading.Thread(target=leave.wait, args=(DEADLINE,)) for _ in range(300)]
    for thread in crowd:
        thread.start()
    longest: list[tuple[int, int]] = []
    try:
        engine.attach(first := Heard(wants_waits=True))
        for _ in range(400):
            before = time.monotonic_ns()
            engine.attach(heard := Heard(wants_waits=True))
            burn(0.001)
            engine.detach(heard)
            passed = time.monotonic_ns() - before
            longest.append((max(sample.wall_ns for sample in heard.samples), passed))
        engine.detach(first)
    finally:
        leave.set()
        for thread in crowd:
            thread.join(DEADLINE)

    assert [pair for pair in longest if pair[0] > pair[1]] == []


def test_threading_is_what_it_was_while_the_engine_runs(native_engine: Engine) -> None:
    before = threading.get_native_id
    native_engine.attach(heard := Heard())
    during = threading.get_native_id
    native_engine.detach(heard)

    assert during is not before
    assert threading.get_native_id is before
    assert (during(), during.__module__, during.__name__) == (before(), before.__module__, before.__name__)


def small(number: int) -> int:
    return number + 1


def medium(number: int) -> int:
    return small(number) + small(number)


def calls_all_the_time() -> None:
    until = time.thread_time() + 0.5
    while time.thread_time() < until:
        for number in range(500):
            medium(number)


@pytest.mark.parametrize("kind", ["cpu", "wall"])
@pytest.mark.parametrize("name", ["native", "polling"])
def test_who_calls_small_functions_all_the_time_is_seen_in_each_of_them(
    open_engine: Callable[..., Engine], name: str, kind: str
) -> None:
    """Its stack is another one each tenth of a microsecond: an unlucky look is repeated, and most are not lost."""
    engine, heard = open_engine(name, sample_rate=1000), Heard(wants_waits=kind == "wall")
    worker, before = Worker("caller", calls_all_the_time), engine.report()
    try:
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
    finally:
        worker.join()

    done = engine.report().since(before)
    assert done.lost_stacks <= 0.2 * done.looks
    for function, least in ((".calls_all_the_time", 0.8), (".medium", 0.2), (".small", 0.02)):
        spent = heard.cpu_ns("caller", function) if kind == "cpu" else heard.wall_ns("caller", function)
        assert spent >= least * worker.used


def test_forks_of_several_threads_at_once_leave_the_looks_going(open_engine: Callable[..., Engine]) -> None:
    """The second one begins before the first one is over."""
    engine = open_engine("polling", sample_rate=1000)
    engine.attach(heard := Heard(wants_waits=True))
    engine.pause()
    engine.pause()
    engine.resume()
    engine.resume()

    wait_for_looks(engine, 3)
    engine.detach(heard)


def test_waits_before_somebody_takes_the_signal_are_not_lost(open_engine: Callable[..., Engine]) -> None:
    engine, worker = open_engine("native"), Worker("sleeper", lambda: None)
    before = signal.getsignal(signal.SIGPROF)
    try:
        engine.attach(heard := Heard(wants_waits=True))
        worker.begin.set()
        assert worker.done.wait(DEADLINE)
        began = time.monotonic_ns()
        wait_for_looks(engine, 5)
        passed = time.monotonic_ns() - began
        signal.signal(signal.SIGPROF, lambda number, frame: None)
        engine.look()
        engine.detach(heard)
    finally:
        signal.signal(signal.SIGPROF, before)
        worker.join()

    assert heard.wall_ns("sleeper", ".waits_for_the_end") >= 0.5 * passed
