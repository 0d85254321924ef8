"""Failures are counted, and logged once a minute for each place."""

from __future__ import annotations

import logging

import pytest

from profiling_middleware import failures
from profiling_middleware.failures import Failures

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
