"""A signal handler that raises, such as for a time-out, in the middle of the middlewares' own steps."""

from __future__ import annotations

import asyncio
import contextvars
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from profiling_middleware.config import Settings
from profiling_middleware.middleware.asgi import ProfilingMiddleware
from profiling_middleware.middleware.wsgi import WSGIProfilingMiddleware
from profiling_middleware.tracing.buffer import TraceBuffer
from profiling_middleware.tracing.requests import RequestSpans

pytestmark = pytest.mark.usefixtures("service_has_ended")


class TimeIsUp(Exception):  # noqa: N818 - it says what is the case
    """What the application's handler raises."""


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    def raises(number: int, frame: FrameType | None) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, raises)
    yield
    signal.signal(signal.SIGALRM, before)


class Spans(RequestSpans):
    """The signal comes while a request begins, or ends."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        self.start(TraceBuffer(100))
        self._moment = moment

    def enter(self, span: Any) -> Any:
        entered = super().enter(span)
        if self._moment == "begin":
            signal.raise_signal(signal.SIGALRM)
        return entered

    def end(self, span: Any) -> None:
        super().end(span)
        if self._moment == "end":
            signal.raise_signal(signal.SIGALRM)


async def receive() -> Any:
    return {"type": "http.request"}


async def send(message: Any) -> None: ...


@pytest.mark.parametrize(("moment", "served"), [("begin", 0), ("end", 1)])
def test_under_asgi_it_is_raised_on(moment: str, served: int) -> None:
    requests = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        requests.append(scope)

    middleware = ProfilingMiddleware(app, settings=Settings())
    middleware._look_for, middleware._started = "", True
    spans = middleware._service.spans = Spans(moment)

    with pytest.raises(TimeIsUp):
        asyncio.run(middleware({"type": "http", "path": "/", "headers": []}, receive, send))  # type: ignore[arg-type]

    assert (len(requests), spans.in_flight(), middleware._service.failures.count) == (served, [], 0)


@pytest.mark.parametrize(("moment", "served"), [("begin", 0), ("end", 1)])
def test_under_wsgi_it_is_raised_on(moment: str, served: int) -> None:
    requests = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        requests.append(environ)
        return []

    middleware = WSGIProfilingMiddleware(app, settings=Settings())
    middleware._look_for, middleware._started = "", True
    spans = middleware._service.spans = Spans(moment)

    def serve() -> None:
        middleware({"PATH_INFO": "/"}, lambda status, headers: lambda data: None)  # type: ignore[arg-type, return-value]

    with pytest.raises(TimeIsUp):
        contextvars.Context().run(serve)  # as each of a server's threads has one

    assert (len(requests), spans.in_flight(), middleware._service.failures.count) == (served, [], 0)
