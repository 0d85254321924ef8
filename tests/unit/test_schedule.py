"""The periodic trigger, on a clock that the tests set."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

from profiling_middleware.schedule import Schedule
from profiling_middleware.timer import Timeline

INTERVAL, DURATION = 300.0, 120.0
Windows = list[tuple[float, float]]


@pytest.fixture
def timeline(clock: Any, logger: logging.Logger) -> Timeline:
    return Timeline(now=clock, logger=logger)


@pytest.fixture
def windows() -> Windows:
    """(when it was opened, when it is to end), relative to the start."""
    return []


@pytest.fixture
def schedule(timeline: Timeline, clock: Any, windows: Windows, logger: logging.Logger) -> Schedule:
    start = clock.now

    def open_window(end: float) -> None:
        windows.append((clock.now - start, end - start))

    return Schedule(timeline, INTERVAL, DURATION, open_window, logger)


def sleep_until(timeline: Timeline, clock: Any, late: Callable[[], float] = lambda: 0.0) -> None:
    """What the timer's thread does: waits for the next action and wakes up a little late."""
    remaining = timeline.run_due()
    assert remaining is not None
    clock.now += remaining + late()


def test_the_first_window_opens_at_the_start(schedule: Schedule, timeline: Timeline, windows: Windows) -> None:
    schedule.start()
    timeline.run_due()

    assert windows == [(0.0, 120.0)]


def test_a_window_opens_every_interval(schedule: Schedule, timeline: Timeline, clock: Any, windows: Windows) -> None:
    schedule.start()
    for _ in range(4):
        sleep_until(timeline, clock)

    assert windows == [(0.0, 120.0), (300.0, 420.0), (600.0, 720.0), (900.0, 1020.0)]


def test_a_thousand_late_wake_ups_do_not_add_up(
    schedule: Schedule, timeline: Timeline, clock: Any, windows: Windows, caplog: pytest.LogCaptureFixture
) -> None:
    lateness = random.Random(1)
    schedule.start()
    for _ in range(1000):
        sleep_until(timeline, clock, late=lambda: lateness.uniform(0, 100))

    assert len(windows) == 1000
    for number, (opened, end) in enumerate(windows):
        assert end == pytest.approx(number * INTERVAL + DURATION, abs=1e-6)
        assert 0 <= opened - number * INTERVAL <= 100
    assert schedule.missed == 0
    assert caplog.messages == []


@pytest.mark.parametrize("start", [0.0, 0.1, 12_345.678, 1e9 + 1 / 3])
@pytest.mark.parametrize("interval", [1.0, 0.1, 7.3, 300.0])
def test_no_window_is_skipped_or_doubled_by_rounding(
    clock: Any, logger: logging.Logger, start: float, interval: float
) -> None:
    clock.now = start
    timeline = Timeline(now=clock, logger=logger)
    opened: list[float] = []
    schedule = Schedule(timeline, interval, interval, opened.append, logger)

    schedule.start()
    for _ in range(1000):
        timeline.run_due()
        assert schedule.next_start is not None
        clock.now = schedule.next_start

    assert len(opened) == 1000
    assert schedule.missed == 0


def test_a_window_that_raises_is_logged_and_the_next_one_opens(
    timeline: Timeline, clock: Any, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[float] = []

    def fails_once(end: float) -> None:
        ends.append(end)
        if len(ends) == 1:
            raise RuntimeError("no luck")

    Schedule(timeline, INTERVAL, DURATION, fails_once, logger).start()
    sleep_until(timeline, clock)
    sleep_until(timeline, clock)

    assert ends == [1120.0, 1420.0]
    assert caplog.messages == ["profiling: an internal step failed; the service is not affected"]


def test_windows_during_which_the_process_did_not_run_are_counted_and_logged(
    schedule: Schedule, timeline: Timeline, clock: Any, windows: Windows, caplog: pytest.LogCaptureFixture
) -> None:
    schedule.start()
    timeline.run_due()

    clock.now += 3 * INTERVAL + 50
    timeline.run_due()

    assert windows == [(0.0, 120.0), (950.0, 1020.0)]
    assert schedule.missed == 2
    assert caplog.messages == ["profiling: 2 windows missed: the process was not running"]
    assert schedule.next_start == 1000 + 4 * INTERVAL


def test_a_window_that_is_over_before_it_could_open_is_missed(
    schedule: Schedule, timeline: Timeline, clock: Any, windows: Windows, caplog: pytest.LogCaptureFixture
) -> None:
    schedule.start()
    timeline.run_due()

    clock.now += INTERVAL + DURATION
    timeline.run_due()
    sleep_until(timeline, clock)
    timeline.run_due()

    assert windows == [(0.0, 120.0), (600.0, 720.0)]
    assert schedule.missed == 1
    assert caplog.messages == ["profiling: 1 window missed: it was over before the process ran again"]


def test_a_late_window_is_shorter_and_ends_at_its_time(
    schedule: Schedule, timeline: Timeline, clock: Any, windows: Windows
) -> None:
    schedule.start()
    sleep_until(timeline, clock, late=lambda: 119.0)
    timeline.run_due()

    assert windows[1] == (419.0, 420.0)


def test_a_schedule_that_has_not_been_started_has_no_next_window(schedule: Schedule) -> None:
    assert schedule.next_start is None


def test_the_next_window_is_known(schedule: Schedule, timeline: Timeline) -> None:
    schedule.start()
    assert schedule.next_start == 1000
    timeline.run_due()
    assert schedule.next_start == 1300


def test_nothing_opens_after_stop(schedule: Schedule, timeline: Timeline, clock: Any, windows: Windows) -> None:
    schedule.start()
    timeline.run_due()

    schedule.stop()
    schedule.stop()

    assert timeline.run_due() is None
    clock.now += 10 * INTERVAL
    timeline.run_due()
    assert windows == [(0.0, 120.0)]
    assert schedule.next_start is None


def test_a_window_may_stop_the_schedule(timeline: Timeline, clock: Any, logger: logging.Logger) -> None:
    ends: list[float] = []

    def last_one(end: float) -> None:
        ends.append(end)
        schedule.stop()

    schedule = Schedule(timeline, INTERVAL, DURATION, last_one, logger)
    schedule.start()

    assert timeline.run_due() is None
    assert ends == [1120.0]
