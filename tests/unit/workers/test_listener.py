"""The socket on which a process can be reached, when there is no descriptor for who comes."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator

import pytest

from profiling_middleware.config import Settings
from profiling_middleware.workers.listener import Listener, Visits
from profiling_middleware.workers.meeting import Meeting, Worker
from profiling_middleware.workers.reactor import READABLE, Reactor


class Visitors(Visits):
    """Who has come."""

    def __init__(self, reactor: Reactor, logger: logging.Logger) -> None:
        super().__init__(reactor, lambda question: pytest.fail("nobody asks"), logger)
        self.come: list[socket.socket] = []

    def begin(self, connection: socket.socket) -> None:
        self.come.append(connection)


@pytest.fixture
def visitors(logger: logging.Logger) -> Iterator[Visitors]:
    visitors = Visitors(Reactor(logger), logger)
    yield visitors
    for connection in visitors.come:
        connection.close()


@pytest.fixture
def listener(settings: Settings, visitors: Visitors, logger: logging.Logger) -> Iterator[Listener]:
    me = Worker(pid=7, instance="web-1-7-0a1b2c3d", enabled=True, started_ns=1)
    listener = Listener(Reactor(logger), Meeting(settings), me, visitors)
    yield listener
    listener.close()


def test_it_rests_and_is_reached_again(
    listener: Listener, visitors: Visitors, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(meeting: Meeting, listening: socket.socket) -> None:
        raise OSError(24, "Too many open files")

    meeting = Meeting(settings)
    connection = meeting.connect("web-1-7-0a1b2c3d")
    meeting.close()
    assert connection is not None
    with monkeypatch.context() as patched, connection:
        patched.setattr(Meeting, "accept", refused)
        listener.on_ready()
        # Or it would be called for the same one again and again.
        assert listener.events == 0
        assert listener.deadline is not None
        assert listener.deadline - time.monotonic() <= 1.0
        listener.on_deadline()
        patched.undo()

        assert listener.events == READABLE
        listener.on_ready()
        assert len(visitors.come) == 1
