"""Answers that are made on a thread of their own."""

from __future__ import annotations

import logging
import threading

import pytest

from profiling_middleware.middleware.later import Later
from profiling_middleware.middleware.messages import AdminResponse


def test_it_is_made_on_a_thread_of_the_profilers_own(logger: logging.Logger, deadline: float) -> None:
    later = Later(lambda: AdminResponse(200, threading.current_thread().name.encode()), logger)

    later.result.result(deadline)
    assert later.response().body == b"profiling-service"


def test_a_conflict_is_409(logger: logging.Logger, deadline: float) -> None:
    def conflict() -> AdminResponse:
        raise RuntimeError("another Profiler runs in this process")

    later = Later(conflict, logger)

    later.result.result(deadline)
    assert (later.response().status, later.response().body) == (
        409,
        b"profiling: another Profiler runs in this process\n",
    )


def test_whatever_fails_is_500_and_logged(
    logger: logging.Logger, deadline: float, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> AdminResponse:
        raise OSError("a secret path")

    later = Later(broken, logger)

    later.result.result(deadline)
    assert later.response().status == 500
    assert later.response().body == b"profiling: failed (OSError); the log says why\n"
    assert "a secret path" in caplog.text


def test_where_no_thread_can_be_started_it_is_made_at_once(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr("profiling_middleware.middleware.later.OwnThread.start", start)

    assert Later(lambda: AdminResponse(200, b"made"), logger).response().body == b"made"


def test_a_client_that_leaves_changes_nothing(logger: logging.Logger, deadline: float) -> None:
    go_on = threading.Event()

    def make() -> AdminResponse:
        assert go_on.wait(deadline)
        return AdminResponse(200, b"made")

    later = Later(make, logger)
    later.cancel()
    go_on.set()

    later.result.result(deadline)
    assert later.response().body == b"made"
