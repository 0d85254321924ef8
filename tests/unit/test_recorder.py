"""Captures being taken, over an engine that the tests script."""

from __future__ import annotations

import gzip
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from profiling_middleware.model import Frame, Reason, Sample, Stack, Thread
from profiling_middleware.pipeline import Pipeline, Request
from profiling_middleware.recorder import MAX_ON_DEMAND, Recorder
from profiling_middleware.recording import CaptureCancelled, Recording, TooManyCaptures
from profiling_middleware.sampling.engine import EngineReport, Listener
from profiling_middleware.threads import OwnThread
from profiling_middleware.timer import TimerThread
from sample_app.pprof_reader import Profile, read_pprof

ON_DEMAND = Request(upload=False, own_key_only=True)
THREAD, STACK = Thread("MainThread", 1), Stack((Frame("app.f", "a.py", 1, 1),))
WAIT = Sample(0, THREAD, Stack((Frame("app.waits", "a.py", 2, 1),)), 0, 1_000_000, reason=Reason.SLEEP)


class ScriptedEngine:
    """Sees one millisecond of work at every look; all calls must come from one thread."""

    name, rate, rate_used, limits = "scripted", 1000, 1000.0, ()

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.threads: set[str] = set()
        self.looks = 0
        self.closed = False
        self.fails_at: dict[str, Exception] = {}
        self.wait_rates = (0, 0)

    def _called(self, name: str) -> None:
        self.threads.add(threading.current_thread().name)
        if name in self.fails_at:
            raise self.fails_at[name]

    def attach(self, listener: Listener) -> None:
        self._called("attach")
        self.listeners.append(listener)

    def detach(self, listener: Listener) -> None:
        self._called("detach")
        self.listeners.remove(listener)

    def flush(self) -> None:
        self._called("flush")

    def set_wait_rates(self, block_rate_ns: int, mutex_fraction: int) -> None:
        self._called("set_wait_rates")
        self.wait_rates = block_rate_ns, mutex_fraction

    def look(self) -> float:
        self._called("look")
        self.looks += 1
        for listener in self.listeners:
            listener.receive([Sample(self.looks, THREAD, STACK, 1_000_000, 1_000_000), WAIT])
        return 0.001

    def report(self) -> EngineReport:
        return EngineReport(looks=self.looks, cpu_ns=self.looks * 1000)

    def close(self) -> None:
        self.closed = True
        self.listeners.clear()


class Engines:
    """Makes engines and keeps them."""

    def __init__(self) -> None:
        self.made: list[ScriptedEngine] = []
        self.next_fails_at: dict[str, Exception] = {}

    def __call__(self) -> ScriptedEngine:
        engine = ScriptedEngine()
        engine.fails_at, self.next_fails_at = self.next_fails_at, {}
        self.made.append(engine)
        return engine


@pytest.fixture
def engines() -> Engines:
    return Engines()


@pytest.fixture
def timer(logger: logging.Logger) -> TimerThread:
    return TimerThread(logger)


@pytest.fixture
def recorder(timer: TimerThread, engines: Engines, logger: logging.Logger, deadline: float) -> Iterator[Recorder]:
    recorder = Recorder(
        timer=timer,
        make_engine=engines,
        pipeline=Pipeline(None, logger),
        service="watcher",
        instance="web-1-7-0a1b2c3d",
        logger=logger,
    )
    yield recorder
    ask(timer, lambda: (recorder.end_all("the test is over"), recorder.close(), timer.timeline.clear()), deadline)


def ask(timer: TimerThread, question: Callable[[], Any], deadline: float) -> Any:
    """What `question` returns on the timer's thread."""
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(question())
        except Exception as error:
            answer.set_exception(error)

    timer.call_soon(run)
    return answer.result(deadline)


def text(recording: Recording, deadline: float) -> bytes:
    """The uncompressed profile, in which names and comments can be found."""
    return gzip.decompress(recording.result.result(deadline).artifact.body)


def test_a_capture_ends_by_itself_after_its_seconds(recorder: Recorder, deadline: float) -> None:
    since = time.monotonic()

    recording = recorder.on_demand("cpu", 0.1, ON_DEMAND)
    content = text(recording, deadline)

    assert 0.1 <= time.monotonic() - since < 5
    assert b"app.f" in content
    assert b"partial" not in content


def test_a_capture_is_described_from_its_first_moment(recorder: Recorder, deadline: float) -> None:
    before = time.time_ns()
    recording = recorder.on_demand("wall", 60, ON_DEMAND)

    info = recording.info
    assert (info.kind, info.service, info.instance, info.trigger) == (
        "wall",
        "watcher",
        "web-1-7-0a1b2c3d",
        "on demand",
    )
    assert before <= info.started_ns <= time.time_ns()


def test_a_capture_that_is_ended_early_says_why(recorder: Recorder, deadline: float) -> None:
    recording = recorder.on_demand("cpu", 60, ON_DEMAND)

    recording.end_early("the operator lost patience")

    assert b"partial: the operator lost patience" in text(recording, deadline)


def test_a_cancelled_capture_keeps_nothing_and_listens_no_more(
    recorder: Recorder, engines: Engines, deadline: float
) -> None:
    recording = recorder.on_demand("cpu", 60, ON_DEMAND)

    recording.cancel()

    assert isinstance(recording.result.exception(deadline), CaptureCancelled)
    assert engines.made[0].listeners == []


def test_cancelling_or_ending_twice_changes_nothing(
    recorder: Recorder, timer: TimerThread, deadline: float, caplog: pytest.LogCaptureFixture
) -> None:
    recording = recorder.on_demand("cpu", 60, ON_DEMAND)

    recording.end_early("first")
    recording.end_early("second")
    recording.cancel()

    assert b"partial: first" in text(recording, deadline)
    ask(timer, lambda: None, deadline)
    assert caplog.messages == []


def test_whoever_waits_for_a_result_cannot_cancel_it_by_the_way(recorder: Recorder, deadline: float) -> None:
    recording = recorder.on_demand("cpu", 0.02, ON_DEMAND)

    assert recording.result.cancel() is False
    assert text(recording, deadline)


def test_eight_captures_on_demand_run_at_once_and_one_that_ends_makes_room(recorder: Recorder, deadline: float) -> None:
    running = [recorder.on_demand("cpu", 60, ON_DEMAND) for _ in range(MAX_ON_DEMAND)]

    with pytest.raises(TooManyCaptures, match="8 captures on demand are running: try again when one ends"):
        recorder.on_demand("cpu", 60, ON_DEMAND)

    running[0].end_early("enough")
    running[0].result.result(deadline)
    recorder.on_demand("cpu", 60, ON_DEMAND)


@pytest.mark.parametrize("end", ["failure", "cancel", "success"])
def test_however_a_capture_ends_it_makes_room(recorder: Recorder, engines: Engines, deadline: float, end: str) -> None:
    for _ in range(3):
        if end == "failure":
            engines.next_fails_at = {"attach": ZeroDivisionError()}
        running = [recorder.on_demand("cpu", 0.02, ON_DEMAND) for _ in range(MAX_ON_DEMAND)]
        for recording in running:
            if end == "cancel":
                recording.cancel()
            recording.result.exception(deadline)


def test_the_engine_is_made_for_the_first_capture_and_used_for_all(
    recorder: Recorder, engines: Engines, deadline: float
) -> None:
    assert engines.made == []

    running = [recorder.on_demand(kind, 0.02, ON_DEMAND) for kind in ("cpu", "wall", "cpu")]
    for recording in running:
        recording.result.result(deadline)

    assert len(engines.made) == 1


def test_the_engine_is_only_called_from_the_timers_thread(
    recorder: Recorder, engines: Engines, deadline: float
) -> None:
    recordings = [recorder.on_demand("cpu", 0.02, ON_DEMAND), recorder.on_demand("wall", 60, ON_DEMAND)]
    recordings[1].end_early("enough")
    for recording in recordings:
        recording.result.result(deadline)

    assert engines.made[0].threads == {"profiling-timer"}


def test_nobody_looks_when_no_capture_runs(
    recorder: Recorder, timer: TimerThread, engines: Engines, deadline: float
) -> None:
    recorder.on_demand("cpu", 0.02, ON_DEMAND).result.result(deadline)

    for thread in threading.enumerate():
        if thread.name == "profiling-timer":
            thread.join(deadline)
            assert not thread.is_alive()
    assert engines.made[0].looks > 1


def test_looking_goes_on_for_the_next_capture(recorder: Recorder, engines: Engines, deadline: float) -> None:
    for _ in range(5):
        before = engines.made[0].looks if engines.made else 0
        assert b"app.f" in text(recorder.on_demand("cpu", 0.02, ON_DEMAND), deadline)
        assert engines.made[0].looks > before


# -- windows ----------------------------------------------------------------------------------------------------------


def test_the_kinds_of_a_window_have_one_start_and_differ_in_their_capture(
    recorder: Recorder, timer: TimerThread, deadline: float
) -> None:
    cpu, wall = ask(timer, lambda: recorder.window(("cpu", "wall"), timer.timeline.now() + 0.05), deadline)

    results = [recording.result.result(deadline).artifact for recording in (cpu, wall)]
    assert cpu.info.started_ns == wall.info.started_ns
    assert (cpu.info.kind, wall.info.kind, cpu.info.trigger) == ("cpu", "wall", "periodic")
    assert cpu.info.capture_id != wall.info.capture_id
    assert [artifact.key == artifact.own_key for artifact in results] == [False, False]


def test_a_window_ends_at_its_time(recorder: Recorder, timer: TimerThread, deadline: float) -> None:
    since = time.monotonic()

    (recording,) = ask(timer, lambda: recorder.window(("cpu",), timer.timeline.now() + 0.1), deadline)
    recording.result.result(deadline)

    assert recording.seconds == pytest.approx(0.1, abs=0.05)
    assert 0.1 <= time.monotonic() - since < 5


def test_captures_on_demand_run_beside_a_window(recorder: Recorder, timer: TimerThread, deadline: float) -> None:
    (window,) = ask(timer, lambda: recorder.window(("cpu",), timer.timeline.now() + 60), deadline)

    three = [recorder.on_demand("cpu", 0.02, ON_DEMAND) for _ in range(3)]

    for recording in three:
        assert b"app.f" in text(recording, deadline)
    assert not window.result.done()
    window.end_early("enough")
    assert b"app.f" in text(window, deadline)


def test_windows_do_not_count_as_captures_on_demand(recorder: Recorder, timer: TimerThread, deadline: float) -> None:
    for _ in range(MAX_ON_DEMAND):
        ask(timer, lambda: recorder.window(("cpu",), timer.timeline.now() + 60), deadline)

    recorder.on_demand("cpu", 0.02, ON_DEMAND).result.result(deadline)


def test_end_all_ends_everything_and_says_why(recorder: Recorder, timer: TimerThread, deadline: float) -> None:
    (window,) = ask(timer, lambda: recorder.window(("wall",), timer.timeline.now() + 60), deadline)
    demand = recorder.on_demand("cpu", 60, ON_DEMAND)

    ask(timer, lambda: recorder.end_all("SIGTERM"), deadline)

    for recording in (window, demand):
        assert b"partial: SIGTERM" in text(recording, deadline)


# -- failures ---------------------------------------------------------------------------------------------------------


def test_a_capture_that_cannot_begin_is_answered_counted_and_logged(
    recorder: Recorder, engines: Engines, deadline: float, caplog: pytest.LogCaptureFixture
) -> None:
    engines.next_fails_at = {"attach": ZeroDivisionError("no luck")}

    recording = recorder.on_demand("cpu", 60, ON_DEMAND)

    assert isinstance(recording.result.exception(deadline), ZeroDivisionError)
    assert recorder.failed == 1
    assert caplog.messages == [
        f"profiling: capture kind=cpu capture={recording.info.capture_id} failed; the service is not affected"
    ]


def test_an_engine_that_cannot_be_made_fails_the_capture_and_the_next_one_tries_again(
    recorder: Recorder, engines: Engines, deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise OSError("no /proc")

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "_make_engine", broken)
        assert isinstance(recorder.on_demand("cpu", 60, ON_DEMAND).result.exception(deadline), OSError)

    assert recorder.on_demand("cpu", 0.02, ON_DEMAND).result.result(deadline)


def test_a_look_that_fails_ends_all_captures_and_the_next_one_has_a_fresh_engine(
    recorder: Recorder, timer: TimerThread, engines: Engines, deadline: float
) -> None:
    engines.next_fails_at = {"look": ZeroDivisionError("no luck")}
    running = ask(timer, lambda: recorder.window(("cpu", "wall"), timer.timeline.now() + 60), deadline)
    failures = [recording.result.exception(deadline) for recording in running]

    after = recorder.on_demand("cpu", 0.02, ON_DEMAND)

    assert b"app.f" in text(after, deadline)
    assert [type(failure) for failure in failures] == [ZeroDivisionError] * 2
    assert recorder.failed == 2
    assert engines.made[0].closed
    assert len(engines.made) == 2


def test_a_capture_that_cannot_end_is_answered_counted_and_logged(
    recorder: Recorder, engines: Engines, deadline: float, caplog: pytest.LogCaptureFixture
) -> None:
    engines.next_fails_at = {"detach": ZeroDivisionError("no luck")}

    recording = recorder.on_demand("cpu", 0.02, ON_DEMAND)

    assert isinstance(recording.result.exception(deadline), ZeroDivisionError)
    assert recorder.failed == 1
    assert len(caplog.messages) == 1


def test_an_engine_that_failed_while_a_capture_ended_is_not_used_again(
    recorder: Recorder, engines: Engines, timer: TimerThread, deadline: float
) -> None:
    """Its listener may still hang in it, and would be fed for ever."""
    engines.next_fails_at = {"detach": ZeroDivisionError("no luck")}
    recorder.on_demand("cpu", 0.02, ON_DEMAND).result.exception(deadline)

    recorder.on_demand("cpu", 0.02, ON_DEMAND).result.exception(deadline)

    ask(timer, lambda: None, deadline)
    assert engines.made[0].listeners == []


def test_an_unknown_kind_fails_alone(recorder: Recorder, timer: TimerThread, deadline: float) -> None:
    unknown, cpu = ask(timer, lambda: recorder.window(("heap", "cpu"), timer.timeline.now() + 0.02), deadline)

    assert isinstance(unknown.result.exception(deadline), KeyError)
    assert b"app.f" in text(cpu, deadline)


# -- what is collected all the time -----------------------------------------------------------------------------------


def test_what_has_been_collected_is_read_at_once_and_again_and_only_grows(
    recorder: Recorder, engines: Engines, timer: TimerThread, deadline: float
) -> None:
    ask(timer, recorder.collect, deadline)
    first = read_pprof(recorder.on_demand("block", None, ON_DEMAND).result.result(deadline).artifact.body)
    looks = engines.made[0].looks
    wait_for(lambda: engines.made[0].looks > looks + 5, deadline)
    second = read_pprof(recorder.on_demand("block", None, ON_DEMAND).result.result(deadline).artifact.body)

    assert [line for line in second.comments if line.startswith("collected: cumulative, since 20")]
    assert total(second) > total(first)
    assert {label for sample in second.samples for label in sample.labels.items()} == {
        ("thread", "MainThread"),
        ("wait", "sleep"),
    }


def test_with_a_length_it_is_what_came_meanwhile(recorder: Recorder, timer: TimerThread, deadline: float) -> None:
    ask(timer, recorder.collect, deadline)
    differences = [recorder.on_demand("block", 0.1, ON_DEMAND) for _ in range(2)]
    found = [read_pprof(recording.result.result(deadline).artifact.body) for recording in differences]
    everything = read_pprof(recorder.on_demand("block", None, ON_DEMAND).result.result(deadline).artifact.body)

    for one in found:
        assert [line for line in one.comments if line.startswith("collected: difference, since 20")]
        assert 0 < total(one) <= total(everything)


def test_a_window_has_all_that_was_collected_by_its_end(
    recorder: Recorder, timer: TimerThread, deadline: float
) -> None:
    ask(timer, recorder.collect, deadline)
    before = read_pprof(recorder.on_demand("block", None, ON_DEMAND).result.result(deadline).artifact.body)
    (window,) = ask(timer, lambda: recorder.window(["block"], timer.timeline.now() + 0.1), deadline)

    assert total(read_pprof(window.result.result(deadline).artifact.body)) > total(before)


def test_an_engine_that_fails_takes_what_was_collected_with_it_and_it_begins_anew(
    recorder: Recorder, engines: Engines, timer: TimerThread, deadline: float
) -> None:
    ask(timer, recorder.collect, deadline)
    engines.made[0].fails_at["look"] = OSError("no more looks")
    wait_for(lambda: engines.made[0].closed, deadline)

    assert total(read_pprof(recorder.on_demand("block", None, ON_DEMAND).result.result(deadline).artifact.body)) >= 0
    assert len(engines.made) == 2
    assert len(engines.made[1].listeners) == 1


def test_when_windows_end_what_was_collected_is_forgotten_and_captures_on_demand_go_on(
    recorder: Recorder, engines: Engines, timer: TimerThread, deadline: float
) -> None:
    ask(timer, recorder.collect, deadline)
    windows = ask(timer, lambda: recorder.window(["cpu", "block"], timer.timeline.now() + 60), deadline)
    on_demand = recorder.on_demand("cpu", 60, ON_DEMAND)
    looks = engines.made[0].looks
    wait_for(lambda: engines.made[0].looks > looks + 50, deadline)

    ask(timer, lambda: recorder.end_windows("switched off"), deadline)

    for window in windows:
        assert b"partial: switched off" in text(window, deadline)
    before = read_pprof(windows[1].result.result(deadline).artifact.body)
    assert (recorder.running, recorder.collects, len(engines.made[0].listeners)) == (1, False, 1)
    assert not on_demand.result.done()
    assert total(before) >= 50_000_000

    def collected_anew() -> object:
        recorder.collect()
        collector = recorder._standing.collector
        return collector.collected().block if collector is not None else None

    assert ask(timer, collected_anew, deadline) == {}


def test_where_the_engine_fails_while_windows_end_nothing_is_collected_any_more(
    recorder: Recorder, engines: Engines, timer: TimerThread, deadline: float
) -> None:
    ask(timer, recorder.collect, deadline)
    engines.made[0].fails_at["detach"] = OSError("no more")

    with pytest.raises(OSError, match="no more"):
        ask(timer, lambda: recorder.end_windows("switched off"), deadline)

    assert (recorder.collects, engines.made[0].closed, recorder.engine_in_use) == (False, True, None)


def test_what_the_engine_costs_is_noted_while_it_looks(
    recorder: Recorder, engines: Engines, timer: TimerThread, deadline: float
) -> None:
    recorder.on_demand("cpu", 0.05, ON_DEMAND).result.result(deadline)

    assert recorder.engine_in_use == ("scripted", 1000.0)
    assert recorder.cost.total_ns == engines.made[0].report().cpu_ns > 0


def test_when_windows_end_and_nothing_else_runs_there_is_no_share_of_a_core_any_more(
    recorder: Recorder, timer: TimerThread, deadline: float
) -> None:
    ask(timer, recorder.collect, deadline)

    def share_afterwards() -> float | None:
        recorder.cost.share = 0.5
        recorder.end_windows("switched off")
        return recorder.cost.share

    assert ask(timer, share_afterwards, deadline) is None


def test_rates_are_the_engines_at_once_and_the_next_ones_too(
    recorder: Recorder, engines: Engines, timer: TimerThread, deadline: float
) -> None:
    ask(timer, recorder.collect, deadline)
    ask(timer, lambda: recorder.set_block_rate(77), deadline)
    ask(timer, lambda: recorder.set_mutex_fraction(5), deadline)
    assert engines.made[0].wait_rates == (77, 5)

    ask(timer, recorder.close, deadline)
    recorder.on_demand("cpu", 0.01, ON_DEMAND).result.result(deadline)
    assert engines.made[1].wait_rates == (77, 5)


def total(profile: Profile) -> int:
    return sum(sample.values[-1] for sample in profile.samples)


def wait_for(condition: Callable[[], bool], deadline: float) -> None:
    give_up = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.001)


def test_where_no_thread_can_be_started_any_more_nobody_waits_for_a_capture(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    """At exit, since Python 3.12."""

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patched:
        patched.setattr(OwnThread, "start", refused)
        for _ in range(MAX_ON_DEMAND + 1):
            recording = recorder.on_demand("cpu", 60.0, ON_DEMAND)
            with pytest.raises(RuntimeError, match="the interpreter is exiting"):
                recording.result.result(deadline)
