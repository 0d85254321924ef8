"""Actions at their times, and the thread that runs them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from profiling_middleware.timer import Timeline, TimerThread


@pytest.fixture
def timeline(clock: Any, logger: logging.Logger) -> Timeline:
    return Timeline(now=clock, logger=logger)


def ask(timer: TimerThread, question: Callable[[], Any], deadline: float) -> Any:
    """What `question` returns on the timer's thread."""
    answer: Future[Any] = Future()
    timer.call_soon(lambda: answer.set_result(question()))
    return answer.result(deadline)


# -- the timeline -----------------------------------------------------------------------------------------------------


def test_nothing_runs_before_its_time(timeline: Timeline, clock: Any) -> None:
    ran: list[str] = []
    timeline.call_at(clock.now + 10, lambda: ran.append("a"))

    assert timeline.run_due() == 10
    clock.now += 9.999
    assert timeline.run_due() == pytest.approx(0.001)
    assert ran == []


def test_an_action_runs_once_when_its_time_has_come(timeline: Timeline, clock: Any) -> None:
    ran: list[str] = []
    timeline.call_at(clock.now + 10, lambda: ran.append("a"))

    clock.now += 10
    assert timeline.run_due() is None
    assert timeline.run_due() is None
    assert ran == ["a"]


def test_actions_run_in_the_order_of_their_times(timeline: Timeline, clock: Any) -> None:
    ran: list[int] = []
    for delay in (5, 1, 4, 2, 3):
        timeline.call_at(clock.now + delay, lambda delay=delay: ran.append(delay))

    clock.now += 10
    timeline.run_due()

    assert ran == [1, 2, 3, 4, 5]


def test_actions_of_the_same_time_run_in_the_order_of_the_calls(timeline: Timeline, clock: Any) -> None:
    ran: list[int] = []
    for number in range(50):
        timeline.call_at(clock.now, lambda number=number: ran.append(number))

    timeline.run_due()

    assert ran == list(range(50))


def test_a_cancelled_action_neither_runs_nor_is_waited_for(timeline: Timeline, clock: Any) -> None:
    ran: list[str] = []
    call = timeline.call_at(clock.now + 1, lambda: ran.append("cancelled"))
    timeline.call_at(clock.now + 5, lambda: ran.append("kept"))

    call.cancel()
    call.cancel()

    assert timeline.run_due() == 5
    clock.now += 5
    timeline.run_due()
    assert ran == ["kept"]


def test_a_call_that_has_run_can_be_cancelled(timeline: Timeline, clock: Any) -> None:
    call = timeline.call_at(clock.now, lambda: None)
    timeline.run_due()

    call.cancel()

    assert timeline.run_due() is None


def test_an_action_may_plan_the_next(timeline: Timeline, clock: Any) -> None:
    ran: list[float] = []

    def again() -> None:
        ran.append(clock.now)
        timeline.call_at(clock.now + 1, again)

    timeline.call_at(clock.now, again)
    for _ in range(3):
        assert timeline.run_due() == 1
        clock.now += 1

    assert ran == [1000.0, 1001.0, 1002.0]


def test_an_action_that_raises_is_logged_and_does_not_stop_the_others(
    timeline: Timeline, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []
    timeline.call_at(clock.now, lambda: 1 / 0)
    timeline.call_at(clock.now, lambda: ran.append("next"))

    timeline.run_due()

    assert ran == ["next"]
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (
        "ERROR",
        "profiling: an internal step failed; the service is not affected",
    )
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_clear_forgets_everything_that_waits(timeline: Timeline, clock: Any) -> None:
    ran: list[str] = []
    timeline.call_at(clock.now, timeline.clear)
    timeline.call_at(clock.now, lambda: ran.append("forgotten"))

    assert timeline.run_due() is None
    assert ran == []


# -- the thread -------------------------------------------------------------------------------------------------------


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("profiling-")]


def wait_for_end(deadline: float) -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("profiling-"):
            thread.join(deadline)
    assert threads() == []


def test_no_thread_exists_until_something_is_to_be_done(logger: logging.Logger) -> None:
    TimerThread(logger)

    assert threads() == []


def test_an_action_runs_on_the_timers_own_daemon_thread(logger: logging.Logger, deadline: float) -> None:
    timer = TimerThread(logger, "profiling-test")

    thread = ask(timer, threading.current_thread, deadline)

    assert (thread.name, thread.daemon) == ("profiling-test", True)


def test_the_thread_ends_when_nothing_waits(logger: logging.Logger, deadline: float) -> None:
    timer = TimerThread(logger)

    ask(timer, lambda: None, deadline)

    wait_for_end(deadline)


def test_the_thread_stays_while_something_waits_and_ends_when_it_is_forgotten(
    logger: logging.Logger, deadline: float
) -> None:
    timer = TimerThread(logger)
    timeline = timer.timeline
    first = ask(timer, lambda: (timeline.call_at(timeline.now() + 3600, lambda: None), threading.get_ident()), deadline)

    second = ask(timer, threading.get_ident, deadline)
    timer.call_soon(timeline.clear)

    assert second == first[1]
    wait_for_end(deadline)


def test_a_planned_action_runs_on_the_thread_by_itself(logger: logging.Logger, deadline: float) -> None:
    timer, ran = TimerThread(logger), threading.Event()
    timeline = timer.timeline

    timer.call_soon(lambda: timeline.call_at(timeline.now() + 0.02, ran.set))

    assert ran.wait(deadline)


def test_an_action_centuries_away_does_not_stop_the_thread(logger: logging.Logger, deadline: float) -> None:
    timer = TimerThread(logger)
    timeline = timer.timeline
    ask(timer, lambda: timeline.call_at(timeline.now() + 1e12, lambda: None), deadline)

    assert ask(timer, lambda: (timeline.clear(), "alive"), 2) == (None, "alive")


def test_an_action_that_raises_does_not_end_the_thread(
    logger: logging.Logger, deadline: float, caplog: pytest.LogCaptureFixture
) -> None:
    timer = TimerThread(logger)

    timer.call_soon(lambda: 1 / 0)

    assert ask(timer, lambda: "alive", deadline) == "alive"
    assert caplog.messages == ["profiling: an internal step failed; the service is not affected"]


def test_calls_of_one_thread_keep_their_order(logger: logging.Logger, deadline: float) -> None:
    timer = TimerThread(logger)
    ran: list[int] = []

    for number in range(500):
        timer.call_soon(lambda number=number: ran.append(number))

    ask(timer, lambda: None, deadline)
    assert ran == list(range(500))


def test_no_call_of_many_threads_is_lost_while_the_thread_comes_and_goes(
    logger: logging.Logger, deadline: float
) -> None:
    timer = TimerThread(logger)
    ran: list[tuple[int, int]] = []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def call(caller: int) -> None:
        for number in range(200):
            done = threading.Event()
            timer.call_soon(lambda number=number, done=done: (ran.append((caller, number)), done.set()))
            assert done.wait(deadline), (caller, number)

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(8)]
    try:
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(deadline)
    finally:
        sys.setswitchinterval(before)

    assert sorted(ran) == [(caller, number) for caller in range(8) for number in range(200)]


def test_never_do_two_threads_run_at_once(logger: logging.Logger, deadline: float) -> None:
    timer = TimerThread(logger)
    running, most = [0], [0]

    def action() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        running[0] -= 1

    callers = [
        threading.Thread(target=lambda: [timer.call_soon(action) for _ in range(200)] and None) for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(deadline)
    ask(timer, lambda: None, deadline)

    assert most == [1]


def test_pause_ends_the_thread_and_keeps_what_waits(logger: logging.Logger, deadline: float) -> None:
    timer, ran = TimerThread(logger), threading.Event()
    timeline = timer.timeline
    ask(timer, lambda: timeline.call_at(timeline.now() + 0.05, ran.set), deadline)

    timer.pause(deadline)

    assert threads() == []
    timer.resume()
    assert ran.wait(deadline)


def test_a_timer_with_nothing_to_do_starts_no_thread_after_a_pause(
    logger: logging.Logger, deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = TimerThread(logger)
    started: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread.name))

    timer.pause(deadline)
    timer.resume()

    assert started == []


def test_calls_during_a_pause_run_after_it_in_their_order(logger: logging.Logger, deadline: float) -> None:
    timer = TimerThread(logger)
    ran: list[int] = []
    timer.pause(deadline)

    for number in range(5):
        timer.call_soon(lambda number=number: ran.append(number))

    assert threads() == []
    assert ran == []
    timer.resume()
    ask(timer, lambda: None, deadline)
    assert ran == [0, 1, 2, 3, 4]


def test_a_pause_does_not_wait_longer_than_its_bound_for_an_action_that_hangs(
    logger: logging.Logger, deadline: float
) -> None:
    timer, begun, go_on = TimerThread(logger), threading.Event(), threading.Event()
    timer.call_soon(lambda: (begun.set(), go_on.wait(deadline)))
    assert begun.wait(deadline)

    timer.pause(0.01)

    assert threads() == ["profiling-timer"]
    go_on.set()
    wait_for_end(deadline)
    timer.resume()


def test_a_pause_that_was_too_short_loses_nothing(logger: logging.Logger, deadline: float) -> None:
    timer, begun, go_on = TimerThread(logger), threading.Event(), threading.Event()
    timer.call_soon(lambda: (begun.set(), go_on.wait(deadline)))
    assert begun.wait(deadline)

    timer.pause(0.01)
    timer.resume()
    go_on.set()

    assert ask(timer, lambda: "alive", deadline) == "alive"


def test_pause_on_the_timers_own_thread_does_not_wait_for_itself(logger: logging.Logger, deadline: float) -> None:
    timer = TimerThread(logger)

    ask(timer, lambda: timer.pause(deadline), deadline)

    wait_for_end(deadline)
    timer.resume()


def test_a_signal_handler_can_call_while_the_thread_waits(logger: logging.Logger, deadline: float) -> None:
    timer, ran = TimerThread(logger), threading.Event()
    timeline = timer.timeline
    ask(timer, lambda: timeline.call_at(timeline.now() + 3600, lambda: None), deadline)
    before = signal.signal(signal.SIGUSR1, lambda *_: timer.call_soon_from_signal(ran.set))

    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert ran.wait(deadline)
    finally:
        signal.signal(signal.SIGUSR1, before)
        timer.call_soon(timeline.clear)


def test_a_signal_handler_can_call_while_the_interrupted_code_holds_the_timers_locks(
    logger: logging.Logger, deadline: float
) -> None:
    """The main thread calls as fast as it can; handlers interrupt it wherever it is, also between its locks."""
    timer = TimerThread(logger)
    seen: list[int] = []
    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, lambda *_: timer.call_soon_from_signal(lambda: seen.append(1)))
    finished = threading.Event()

    def interrupt() -> None:
        while not finished.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        for _ in range(3000):
            timer.call_soon(lambda: None)
    finally:
        finished.set()
        interrupter.join(deadline)
        signal.signal(signal.SIGUSR1, before)

    assert ask(timer, lambda: len(seen) > 0, deadline)


def test_a_call_from_a_signal_starts_no_thread(logger: logging.Logger, deadline: float) -> None:
    timer = TimerThread(logger)
    ran: list[str] = []

    timer.call_soon_from_signal(lambda: ran.append("late"))

    assert threads() == []
    ask(timer, lambda: None, deadline)
    assert ran == ["late"]


def test_a_thread_that_cannot_be_started_is_reported_and_the_call_is_kept(
    logger: logging.Logger, deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the exit of the interpreter, or in a process that has reached its limit of threads for a moment."""
    timer = TimerThread(logger)
    ran: list[str] = []

    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        assert timer.call_soon(lambda: ran.append("first")) is False
    assert timer.call_soon(lambda: ran.append("second")) is True

    ask(timer, lambda: None, deadline)
    assert ran == ["first", "second"]
