"""Failures are counted, and logged once a minute for each place."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable

import pytest

from profiling_middleware import failures
from profiling_middleware.failures import Failures, raised_by_a_handler

SAID = "profiling: an internal step failed; the service is not affected"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(failures.time, "monotonic", lambda: now[0])
    return now


def fail(kept: Failures, error: Exception) -> None:
    try:
        raise error
    except Exception:
        kept.note()


def test_the_same_failure_is_logged_once_a_minute_with_how_many_there_were(
    logger: logging.Logger, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    kept = Failures(logger)
    for _ in range(1000):
        fail(kept, ValueError("the same"))
    clock[0] += 60
    fail(kept, ValueError("the same"))

    assert caplog.messages == [SAID, f"{SAID} (and 999 times since this was said last)"]
    assert kept.count == 1001
    assert caplog.records[0].exc_info is not None


def test_another_failure_is_logged_at_once(
    logger: logging.Logger, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    kept = Failures(logger)
    fail(kept, ValueError())
    fail(kept, KeyError())
    try:
        raise ValueError
    except ValueError:
        kept.note()

    assert caplog.messages == [SAID] * 3


def test_what_is_remembered_is_bounded(logger: logging.Logger, clock: list[float]) -> None:
    kept = Failures(logger)
    for number in range(1000):
        fail(kept, type(f"Error{number}", (Exception,), {})())

    assert len(kept._said) <= failures._MOST_PLACES


def test_a_log_that_raises_does_no_harm(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger, "exception", lambda *_: 1 / 0)
    kept = Failures(logger)

    fail(kept, ValueError())

    assert kept.count == 1


def test_what_a_signal_handler_raises_is_told_from_what_fails_by_itself() -> None:
    def handle_with_names(number: int, frame: object) -> None:
        raise TimeoutError

    def handle_anything(*arguments: object) -> None:
        raise TimeoutError

    def helps() -> None:
        raise TimeoutError

    def handle_through_another(number: int, frame: object) -> None:
        helps()

    def fails(frame: object) -> None:
        raise TimeoutError

    def caught(work: Callable[[], object]) -> BaseException:
        with pytest.raises(TimeoutError) as info:
            work()
        return info.value

    before = signal.getsignal(signal.SIGUSR1)
    try:
        for handler in (handle_with_names, handle_anything, handle_through_another):
            signal.signal(signal.SIGUSR1, handler)
            assert raised_by_a_handler(caught(lambda: signal.raise_signal(signal.SIGUSR1)))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not raised_by_a_handler(caught(helps))
    assert not raised_by_a_handler(caught(lambda: fails(None)))
    assert not raised_by_a_handler(TimeoutError())
