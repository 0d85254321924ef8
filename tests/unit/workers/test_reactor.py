"""Sockets on one thread, which is there only while they are."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiling_middleware.workers.reactor import READABLE, Reactor

NAME = "profiling-workers"
FILES = Path("/proc/self/fd")


class Echo:
    """Notes what comes."""

    events = READABLE

    def __init__(self) -> None:
        self.outside, self._socket = socket.socketpair()
        self.received = threading.Event()
        self.timed_out = threading.Event()
        self.failed = threading.Event()
        self.deadline: float | None = None
        self.raises: Exception | None = None

    @property
    def fileno(self) -> int:
        return self._socket.fileno()

    def on_ready(self) -> None:
        self._socket.recv(10)
        if self.raises is not None:
            raise self.raises
        self.received.set()

    def on_deadline(self) -> None:
        self.deadline = None
        self.timed_out.set()

    def on_failure(self) -> None:
        self.failed.set()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def reactor(logger: logging.Logger) -> Iterator[Reactor]:
    reactor = Reactor(logger)
    yield reactor
    reactor.close()


@pytest.fixture
def echo(reactor: Reactor, deadline: float) -> Iterator[Echo]:
    echo, added = Echo(), threading.Event()
    reactor.call_soon(lambda: (reactor.add(echo), added.set()))
    assert added.wait(deadline)
    yield echo
    echo.outside.close()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def test_a_handler_is_called_when_something_comes_and_when_its_time_has_come(echo: Echo, deadline: float) -> None:
    echo.deadline = time.monotonic()
    echo.outside.send(b"x")

    assert echo.received.wait(deadline)
    assert echo.timed_out.wait(deadline)


def test_without_a_handler_there_is_no_thread_and_no_descriptor(reactor: Reactor, echo: Echo, deadline: float) -> None:
    assert len(threads()) == 1
    (thread,) = threads()
    descriptors = len(list(FILES.iterdir()))
    reactor.call_soon(lambda: reactor.remove(echo))
    thread.join(deadline)

    assert threads() == []
    assert len(list(FILES.iterdir())) == descriptors - 3  # the socket, and both ends of the waker


def test_one_that_fails_is_logged_told_and_gone_and_the_others_go_on(
    reactor: Reactor, echo: Echo, deadline: float, caplog: pytest.LogCaptureFixture
) -> None:
    other = Echo()
    reactor.call_soon(lambda: reactor.add(other))
    other.raises = ZeroDivisionError("on purpose")
    other.outside.send(b"x")
    assert other.failed.wait(deadline)
    assert other.outside.recv(1) == b""
    other.outside.close()
    echo.outside.send(b"x")

    assert echo.received.wait(deadline)
    assert "on purpose" in caplog.text


def test_paused_it_has_no_thread_and_resumed_it_goes_on(reactor: Reactor, echo: Echo, deadline: float) -> None:
    reactor.pause(deadline)
    assert threads() == []
    echo.outside.send(b"x")
    reactor.call_soon(lambda: None)
    assert threads() == []
    reactor.resume()

    assert echo.received.wait(deadline)


def test_abandoned_all_its_sockets_are_closed(reactor: Reactor, echo: Echo, deadline: float) -> None:
    reactor.pause(deadline)
    reactor.abandon()

    assert echo.outside.recv(1) == b""


def test_without_a_descriptor_it_says_so_and_the_next_call_tries_again(
    reactor: Reactor, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    def refused() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    done = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(os, "pipe", refused)
        assert not reactor.call_soon(lambda: None)

    assert reactor.call_soon(done.set)
    assert done.wait(deadline)


def test_a_log_that_raises_does_not_end_it(
    reactor: Reactor, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    monkeypatch.setattr(logger, "exception", lambda *_: 1 / 0)
    done = threading.Event()

    reactor.call_soon(lambda: 1 / 0)
    reactor.call_soon(done.set)

    assert done.wait(deadline)
