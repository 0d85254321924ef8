"""WSGI bodies that are never closed, and what is asked of them: a service sees them as they are."""

from __future__ import annotations

import contextvars
import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from profiling_middleware.failures import Failures
from profiling_middleware.labels import Served
from profiling_middleware.middleware.wsgi_work import Work, observed
from profiling_middleware.tracing.buffer import TraceBuffer
from profiling_middleware.tracing.requests import RequestSpans


class Parts:
    """As Django's responses: it can be taken, and is no iterator."""

    status_code = 200

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter((b"a", b"b"))

    def close(self) -> None:
        self.closed += 1


def generated() -> Iterator[bytes]:
    yield b"a"
    yield b"b"


@pytest.fixture
def spans() -> RequestSpans:
    spans = RequestSpans()
    spans.start(TraceBuffer(100))
    return spans


def serve(spans: RequestSpans, body: Iterable[bytes]) -> Any:
    """What a server would get."""
    work = Work(Served(lambda subject: None, {}), spans, Failures())
    work.trace(spans)
    return observed(body, work)


def alone(check: Callable[[], None]) -> None:
    contextvars.Context().run(check)


@pytest.mark.parametrize("make", [Parts, generated])
def test_who_takes_a_body_and_never_closes_it_ends_the_request(
    spans: RequestSpans, make: Callable[[], Iterable[bytes]]
) -> None:
    """Starlette's and asgiref's adapters, and `[b"".join(app(environ, start_response))]`."""

    def check() -> None:
        for part in serve(spans, make()):
            assert part in (b"a", b"b")
            assert len(spans.in_flight()) == 1
        assert spans.in_flight() == []

    gc.disable()
    try:
        alone(check)
    finally:
        gc.enable()


@pytest.mark.parametrize("make", [Parts, generated])
def test_who_does_not_take_it_at_all_does_too(spans: RequestSpans, make: Callable[[], Iterable[bytes]]) -> None:
    def check() -> None:
        serve(spans, make())
        assert spans.in_flight() == []

    alone(check)


def test_a_closed_one_ends_once(spans: RequestSpans) -> None:
    body = Parts()

    def check() -> None:
        answer = serve(spans, body)
        answer.close()
        other = serve(spans, Parts())
        del answer  # ends nothing any more
        assert len(spans.in_flight()) == 1
        other.close()

    alone(check)
    assert body.closed == 1


def test_what_is_no_iterator_does_not_look_like_one(spans: RequestSpans) -> None:
    def check() -> None:
        answer = serve(spans, Parts())
        assert not isinstance(answer, Iterator)
        assert answer.status_code == 200
        assert list(answer) == list(answer) == [b"a", b"b"]
        with pytest.raises(AttributeError, match="nothing_of_it"):
            answer.nothing_of_it  # noqa: B018
        assert isinstance(serve(spans, generated()), Iterator)

    alone(check)
