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

from profiling_middleware.model import Frame, Sample, Stack, Thread
from profiling_middleware.pipeline import Pipeline, Request
from profiling_middleware.recording import (
    MAX_ON_DEMAND,
    CaptureCancelled,
    Recorder,
    Recording,
    TooManyCaptures,
)
from profiling_middleware.sampling.engine import EngineReport, Listener
from profiling_middleware.timer import TimerThread

ON_DEMAND = Request(upload=False, own_key_only=True)
THREAD, STACK = Thread("MainThread", 1), Stack((Frame("app.f", "a.py", 1, 1),))


class ScriptedEngine:
    """Sees one millisecond of work at every look; all calls must come from one thread."""

    name, rate, rate_used, limits = "scripted", 1000, 1000.0, ()

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.threads: set[str] = set()
        self.looks = 0
        self.closed = False
        self.fails_at: dict[str, Exception] = {}

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

    def look(self) -> float:
        self._called("look")
        self.looks += 1
        for listener in self.listeners:
            listener.receive([Sample(self.looks, THREAD, STACK, 1_000_000, 1_000_000)])
        return 0.001

    def report(self) -> EngineReport:
        return EngineReport(looks=self.looks)

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
