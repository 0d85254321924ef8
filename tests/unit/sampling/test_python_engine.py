"""The portable engine: what it hands out is what the threads' own clocks say."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from profiling_middleware.model import Sample
from profiling_middleware.sampling.clocks import RunState, RunStates
from profiling_middleware.sampling.python import PythonEngine

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="exact only with Linux's clocks")


class Heard:
    """A listener that keeps everything."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def receive(self, samples: Sequence[Sample]) -> None:
        self.samples += samples

    def cpu_ns(self, thread: str | None = None, function: str = "") -> int:
        return sum(
            sample.cpu_ns
            for sample in self.samples
            if thread in (None, sample.thread.name)
            and any(frame.function.endswith(function) for frame in sample.stack.frames)
        )

    def wall_ns(self, thread: str, function: str = "") -> int:
        return sum(
            sample.wall_ns
            for sample in self.samples
            if sample.thread.name == thread and any(frame.function.endswith(function) for frame in sample.stack.frames)
        )


class Worker:
    """A thread that does `work` and then waits; `used` is the CPU time the work took by the thread's own clock."""

    def __init__(self, name: str, work: Callable[[], object], *, wait: bool = True) -> None:
        self.begin, self.end, self.done = threading.Event(), threading.Event(), threading.Event()
        self.used = 0
        self._work, self._wait = work, wait
        self.thread = threading.Thread(target=self._run, name=name)
        self.thread.start()

    def _run(self) -> None:
        assert self.begin.wait(30)
        before = time.thread_time_ns()
        self._work()
        self.used = time.thread_time_ns() - before
        self.done.set()
        if self._wait:
            self.waits_for_the_end()

    def waits_for_the_end(self) -> None:
        self.end.wait(30)

    def join(self) -> None:
        self.begin.set()
        self.end.set()
        self.thread.join(30)


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(200))


@pytest.fixture
def engine() -> Iterator[PythonEngine]:
    engine = PythonEngine(rate=100, max_overhead=1.0)
    yield engine
    engine.close()


def look_until(engine: PythonEngine, done: threading.Event) -> None:
    """What the timer's thread does, on this one."""
    give_up = time.monotonic() + 30
    while not done.wait(engine.look()):
        assert time.monotonic() < give_up


def test_a_thread_gets_the_cpu_time_its_own_clock_says(engine: PythonEngine) -> None:
    heard, worker = Heard(), Worker("burner", lambda: burn(0.3))
    try:
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
    finally:
        worker.join()

    assert heard.cpu_ns("burner") == pytest.approx(worker.used, rel=0.02, abs=2_000_000)


def test_work_is_seen_in_the_function_that_does_it(engine: PythonEngine) -> None:
    heard, worker = Heard(), Worker("burner", lambda: burn(0.3))
    try:
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
    finally:
        worker.join()

    assert heard.cpu_ns("burner", ".burn") >= 0.9 * worker.used


def test_two_threads_share_the_time_as_their_clocks_say(engine: PythonEngine) -> None:
    heard, much, little = Heard(), Worker("much", lambda: burn(0.3)), Worker("little", lambda: burn(0.1))
    try:
        engine.attach(heard)
        much.begin.set()
        little.begin.set()
        look_until(engine, much.done)
        assert little.done.wait(30)
        engine.detach(heard)
    finally:
        much.join()
        little.join()

    assert heard.cpu_ns("much") == pytest.approx(much.used, rel=0.02, abs=2_000_000)
    assert heard.cpu_ns("little") == pytest.approx(little.used, rel=0.02, abs=2_000_000)


def test_all_cpu_time_of_the_process_is_handed_out(engine: PythonEngine) -> None:
    heard, worker = Heard(), Worker("burner", lambda: burn(0.2))
    try:
        before = time.process_time_ns()
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
        used = time.process_time_ns() - before
    finally:
        worker.join()

    assert heard.cpu_ns() == pytest.approx(used, rel=0.03, abs=3_000_000)


def test_a_thread_that_waits_has_wall_time_where_it_waits_and_no_cpu_time(engine: PythonEngine) -> None:
    heard, sleeper, burner = Heard(), Worker("sleeper", lambda: None), Worker("burner", lambda: burn(0.15))
    try:
        sleeper.begin.set()
        assert sleeper.done.wait(30)
        engine.attach(heard)
        before = time.monotonic_ns()
        burner.begin.set()
        look_until(engine, burner.done)
        engine.detach(heard)
        passed = time.monotonic_ns() - before
    finally:
        sleeper.join()
        burner.join()

    assert heard.wall_ns("sleeper", ".waits_for_the_end") == pytest.approx(passed, rel=0.05, abs=20_000_000)
    assert heard.cpu_ns("sleeper") < 2_000_000


def test_the_wall_time_of_a_thread_is_the_time_that_passed(engine: PythonEngine) -> None:
    heard, worker = Heard(), Worker("burner", lambda: burn(0.2))
    try:
        before = time.monotonic_ns()
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
        passed = time.monotonic_ns() - before
    finally:
        worker.join()

    assert heard.wall_ns("burner") == pytest.approx(passed, rel=0.02, abs=10_000_000)


def test_the_wall_time_of_a_thread_that_works_and_waits_in_turn_is_the_time_that_passed(engine: PythonEngine) -> None:
    pause = threading.Event()

    def in_turn() -> None:
        for _ in range(15):
            burn(0.005)
            pause.wait(0.01)

    heard, worker = Heard(), Worker("burner", in_turn)
    try:
        before = time.monotonic_ns()
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
        passed = time.monotonic_ns() - before
    finally:
        worker.join()

    assert heard.wall_ns("burner") == pytest.approx(passed, rel=0.02, abs=10_000_000)
    assert heard.cpu_ns("burner") == pytest.approx(worker.used, rel=0.02, abs=2_000_000)


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


def test_what_happened_before_a_listener_came_is_not_its_business(engine: PythonEngine) -> None:
    first, second = Heard(), Heard()
    before, after = Worker("before", lambda: burn(0.1)), Worker("after", lambda: burn(0.1))
    try:
        engine.attach(first)
        before.begin.set()
        look_until(engine, before.done)
        engine.attach(second)
        after.begin.set()
        look_until(engine, after.done)
        engine.detach(first)
        engine.detach(second)
    finally:
        before.join()
        after.join()

    assert first.cpu_ns("before") == pytest.approx(before.used, rel=0.03, abs=3_000_000)
    assert first.cpu_ns("after") == pytest.approx(after.used, rel=0.03, abs=3_000_000)
    assert second.cpu_ns("before") < 3_000_000
    assert second.cpu_ns("after") == pytest.approx(after.used, rel=0.03, abs=3_000_000)


def test_what_was_not_handed_out_yet_goes_to_those_who_listened_then(engine: PythonEngine) -> None:
    first, second = Heard(), Heard()
    worker = Worker("burner", lambda: burn(0.05))
    try:
        engine.attach(first)
        worker.begin.set()
        assert worker.done.wait(30)
        engine.attach(second)
        engine.detach(first)
        engine.detach(second)
    finally:
        worker.join()

    assert first.cpu_ns("burner") == pytest.approx(worker.used, rel=0.03, abs=3_000_000)
    assert second.cpu_ns("burner") < 3_000_000


def test_a_listener_that_has_left_hears_nothing_more(engine: PythonEngine) -> None:
    stays, leaves, worker = Heard(), Heard(), Worker("burner", lambda: burn(0.1))
    try:
        engine.attach(stays)
        engine.attach(leaves)
        engine.detach(leaves)
        engine.detach(leaves)
        count = len(leaves.samples)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(stays)
    finally:
        worker.join()

    assert len(leaves.samples) == count
    assert stays.cpu_ns("burner") > 50_000_000


def test_a_second_capture_after_the_first_begins_from_nothing(engine: PythonEngine) -> None:
    first, second = Heard(), Heard()
    one, other = Worker("one", lambda: burn(0.1)), Worker("other", lambda: burn(0.1))
    try:
        engine.attach(first)
        one.begin.set()
        look_until(engine, one.done)
        engine.detach(first)
        burn(0.05)
        engine.attach(second)
        other.begin.set()
        look_until(engine, other.done)
        engine.detach(second)
    finally:
        one.join()
        other.join()

    assert second.cpu_ns("one") < 3_000_000
    assert second.cpu_ns("other") == pytest.approx(other.used, rel=0.03, abs=3_000_000)
    assert second.cpu_ns() < 150_000_000


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


def test_a_thread_that_came_during_the_capture_is_found_with_what_it_used(engine: PythonEngine) -> None:
    heard = Heard()
    engine.attach(heard)
    engine.look()
    late = Worker("latecomer", lambda: burn(0.1))
    try:
        late.begin.set()
        look_until(engine, late.done)
        engine.detach(heard)
    finally:
        late.join()

    assert heard.cpu_ns("latecomer") == pytest.approx(late.used, rel=0.03, abs=3_000_000)


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


def test_looks_become_rarer_when_they_would_cost_more_than_allowed() -> None:
    engine = PythonEngine(rate=1000, max_overhead=0.01)
    busy = [Worker(f"w{number}", lambda: burn(0.5)) for number in range(2)]
    engine.attach(Heard())
    try:
        for worker in busy:
            worker.begin.set()
        waiting, asked_for, looks = threading.Event(), 0.0, 0
        before = engine.report().cpu_ns
        while asked_for < 0.8:
            pause = engine.look()
            asked_for, looks = asked_for + pause, looks + 1
            waiting.wait(pause)
        cost = engine.report().cpu_ns - before
    finally:
        for worker in busy:
            worker.join()
        engine.close()

    assert cost / 1e9 / asked_for <= 0.02
    assert looks < 800  # what the rate asks for


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


def test_no_descriptor_stays_open_when_nobody_listens(engine: PythonEngine) -> None:
    worker = Worker("burner", lambda: burn(0.05))
    try:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing opens one itself either way
        heard = Heard()
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
        after = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    finally:
        worker.join()

    assert after == before


def test_no_frame_is_kept_alive_by_a_look(engine: PythonEngine) -> None:
    class Held:
        """What a function of the service holds."""

    import weakref

    gone: list[weakref.ref[Held]] = []

    def hold() -> None:
        held = Held()
        gone.append(weakref.ref(held))
        burn(0.05)

    heard, worker = Heard(), Worker("holder", hold)
    try:
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        assert gone[0]() is None
        engine.detach(heard)
    finally:
        worker.join()


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
        while RunStates().of(worker.native_id or 0) is not RunState.WAITING:
            assert time.monotonic() < give_up

    worker = threading.Thread(target=work_and_wait, name="worker")
    try:
        worker.start()
        engine.attach(heard)
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
