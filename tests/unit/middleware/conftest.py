"""A request from a developer's own machine, which each test changes in one place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from profiling_middleware.middleware import service
from profiling_middleware.middleware.messages import AdminRequest
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.profiler import Profiler

LOCAL: dict[str, Any] = {
    "method": "GET",
    "path": "/debug/pprof/cpu",
    "root": "",
    "query": "",
    "headers": [("host", "localhost:8000"), ("user-agent", "curl/8.5.0"), ("accept", "*/*")],
    "peer": "127.0.0.1",
    "peer_port": None,
    "own_port": None,
    "http_version": "1.1",
    "can_wait": True,
}


@pytest.fixture
def make_request() -> Callable[..., AdminRequest]:
    """`add` appends headers, `without` leaves some out, everything else replaces a part of the request."""

    def make(*add: tuple[str, str], without: tuple[str, ...] = (), **changes: Any) -> AdminRequest:
        headers = [header for header in LOCAL["headers"] if header[0] not in without]
        return AdminRequest(**(LOCAL | {"headers": [*headers, *add]} | changes))

    return make


@pytest.fixture
def service_has_ended() -> Iterator[None]:
    """Stops the profiler that a middleware has started, and puts the SIGTERM handler back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if isinstance(THIS_PROCESS.resident, Profiler):
        THIS_PROCESS.resident.stop()
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def started_profiler(monkeypatch: pytest.MonkeyPatch, deadline: float) -> Callable[[], Profiler | None]:
    """The profiler that a middleware has started, once it has; it takes no time to settle."""
    monkeypatch.setattr(service, "_SETTLE_SECONDS", 0.0)

    def wait() -> Profiler | None:
        for thread in threading.enumerate():
            if thread.name == "profiling-start":
                thread.join(deadline)
        resident = THIS_PROCESS.resident
        return resident if isinstance(resident, Profiler) and resident.started else None

    return wait
