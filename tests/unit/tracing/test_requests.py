"""Requests in flight: what is told of them when they end, and what of those that go on."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import threading
import time
import weakref
from http import HTTPStatus
from typing import Any

import pytest
from tracing_kit import routed, taken

from profiling_middleware.trace_events import RequestEvent
from profiling_middleware.tracing.buffer import TraceBuffer
from profiling_middleware.tracing.requests import WORKS_FOR, RequestSpans, request_of_step
from profiling_middleware.tracing.rows import NO_ROW, Rows

ORDERS = {"endpoint": "/orders/{id}", "method": "GET"}


@pytest.fixture
def spans(buffer: TraceBuffer) -> RequestSpans:
    spans = RequestSpans()
    spans.start(buffer)
    return spans


def ended(spans: RequestSpans, buffer: TraceBuffer, *messages: dict[str, Any], subject: Any = ORDERS) -> RequestEvent:
    """A request whose application has sent these."""
    span = spans.begin(routed, subject, lambda message: message)
    for message in messages:
        assert span.send(message) is message
    spans.end(span)
    (event,) = taken(buffer)
    return event  # type: ignore[no-any-return]


START = {"type": "http.response.start", "status": 201}
BODY = {"type": "http.response.body", "body": b"x", "more_body": True}


def test_what_the_application_sends_with_is_a_coroutine_function(spans: RequestSpans) -> None:
    assert asyncio.iscoroutinefunction(spans.begin(routed, ORDERS, lambda message: message).send)


def test_a_request_is_told_with_its_times_and_its_answer(spans: RequestSpans, buffer: TraceBuffer) -> None:
    readings = [time.monotonic_ns()]

    def read() -> None:
        readings.append(time.monotonic_ns())

    span = spans.begin(routed, ORDERS, lambda message: message)
    read()
    span.send(START)
    read()
    span.send(BODY)
    read()
    span.send(BODY)
    span.send({"type": "http.response.body"})
    read()
    spans.end(span)
    read()

    (event,) = taken(buffer)
    assert event[:2] == (0, 1)
    assert (event.method, event.endpoint, event.status) == ("GET", "/orders/{id}", 201)
    times = [event.began_ns, event.first_byte_ns, event.ended_ns]
    expected = [readings[0], times[0], *readings[1:3], times[1], *readings[3:5], times[2], readings[5]]
    assert expected == sorted(expected)
    assert spans.in_flight() == []


@pytest.mark.parametrize(
    ("messages", "status", "has_body"),
    [
        ([], 0, False),
        ([START], 201, False),
        ([START, BODY], 201, True),
        # What is sent after the body began changes nothing.
        ([START, BODY, {"type": "http.response.start", "status": 500}], 201, True),
        ([{"type": "http.response.start", "status": 404}, {"type": "http.response.body"}], 404, True),
        ([{"type": "http.response.debug"}, START, {"type": "http.response.trailers"}], 201, False),
        ([{"type": "websocket.accept"}, {"type": "websocket.send"}, {"type": "websocket.close"}], 101, True),
        ([{"type": "websocket.close"}], 0, False),
    ],
)
def test_status_and_first_byte_are_those_of_the_answer(
    messages: list[dict[str, Any]], status: int, has_body: bool, spans: RequestSpans, buffer: TraceBuffer
) -> None:
    event = ended(spans, buffer, *messages)
    assert (event.status, event.first_byte_ns > 0) == (status, has_body)


@pytest.mark.parametrize(
    ("sent", "told"),
    [(HTTPStatus.CREATED, 201), (201.0, 0), ("201", 0), (None, 0), (-1, 0), (10**30, 0), ([], 0), (999, 999)],
    ids=repr,
)
def test_a_status_is_a_number_that_can_be_written(
    sent: Any, told: int, spans: RequestSpans, buffer: TraceBuffer
) -> None:
    """Servers may take more than that, and the trace of all others must not be lost for it."""
    event = ended(spans, buffer, {**START, "status": sent}, BODY)
    assert (event.status, isinstance(event.status, int), event.first_byte_ns > 0) == (told, True, True)


def test_sending_returns_and_raises_what_the_server_does(spans: RequestSpans, buffer: TraceBuffer) -> None:
    def refuses(_: object) -> object:
        raise OSError("the client is gone")

    span = spans.begin(routed, ORDERS, refuses)
    with pytest.raises(OSError, match="the client is gone"):
        span.send(START)
    spans.end(span)
    assert taken(buffer)[0].status == 201


@pytest.mark.parametrize(
    ("said", "status"),
    [("200 OK", 200), ("404 Not Found", 404), ("599", 599), ("", 0), ("OK", 0), ("2x0 no", 0), ("²00", 0)],
)
def test_wsgi_notes_what_it_knows(said: str, status: int, spans: RequestSpans, buffer: TraceBuffer) -> None:
    span = spans.begin(routed, dict(ORDERS))
    span.note_status(said)
    before = time.monotonic_ns()
    span.note_first_byte()
    after = time.monotonic_ns()
    span.note_first_byte()
    spans.end(span)
    (event,) = taken(buffer)
    assert (event.status, event.endpoint) == (status, "/orders/{id}")
    assert before <= event.first_byte_ns <= after


class RoutingError(Exception):
    pass


def fails(_: object) -> None:
    raise RoutingError


@pytest.mark.parametrize(
    ("resolve", "subject", "names"),
    [
        (routed, ORDERS, ("GET", "/orders/{id}")),
        (routed, {}, ("", "<no route>")),
        (routed, {"endpoint": "", "method": "PUT"}, ("PUT", "<no route>")),
        (lambda _: (), {}, ("", "<no route>")),
        (fails, {}, ("", "<no route>")),
    ],
    ids=["routed", "no route yet", "no endpoint", "no labels", "fails"],
)
def test_a_request_is_called_what_is_known_when_it_ends(
    resolve: Any, subject: Any, names: tuple[str, str], spans: RequestSpans, buffer: TraceBuffer
) -> None:
    span = spans.begin(resolve, subject)
    spans.end(span)
    (event,) = taken(buffer)
    assert (event.method, event.endpoint) == names


def test_the_route_is_asked_for_when_the_request_has_been_routed(spans: RequestSpans, buffer: TraceBuffer) -> None:
    subject: dict[str, str] = {}
    span = spans.begin(routed, subject)
    assert span.event(0).endpoint == "<no route>"
    subject |= ORDERS
    assert span.event(0).endpoint == "/orders/{id}"
    spans.end(span)
    assert taken(buffer)[0].endpoint == "/orders/{id}"


def test_requests_that_overlap_have_rows_and_numbers_of_their_own(spans: RequestSpans, buffer: TraceBuffer) -> None:
    one, two, three = [spans.begin(routed, ORDERS) for _ in range(3)]
    spans.end(two)
    four = spans.begin(routed, ORDERS)
    assert [span.row for span in (one, two, three, four)] == [0, 1, 2, 1]
    for span in (four, three, one):
        spans.end(span)
    told = [(event.number, event.row) for event in taken(buffer)]
    assert told == [(2, 1), (4, 1), (3, 2), (1, 0)]


def test_a_request_that_has_no_row_is_counted(buffer: TraceBuffer) -> None:
    spans = RequestSpans()
    spans._rows = Rows(limit=1)
    spans.start(buffer)
    first, second = spans.begin(routed, ORDERS), spans.begin(routed, ORDERS)
    assert (first.row, second.row) == (0, NO_ROW)
    assert len(spans.in_flight()) == 2
    spans.end(second)
    assert (taken(buffer), buffer.dropped) == ([], 1)
    spans.end(first)
    assert ([event.number for event in taken(buffer)], buffer.dropped) == ([1], 1)
    assert spans.in_flight() == []


def test_those_in_flight_are_told_as_going_on(spans: RequestSpans, buffer: TraceBuffer) -> None:
    span = spans.begin(routed, ORDERS, lambda message: message)
    span.send(START)
    (found,) = spans.in_flight()
    assert found is span
    event = span.event(0)
    assert (event.ended_ns, event.status, event.number, event.began_ns) == (0, 201, 1, span.began_ns)
    assert taken(buffer) == []


def test_a_request_is_in_flight_until_it_is_told(
    spans: RequestSpans, buffer: TraceBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread that looks at both, first at those in flight, misses none."""
    span = spans.begin(routed, ORDERS)
    found: list[Any] = []
    monkeypatch.setattr(buffer, "add", lambda *event: found.extend(spans.in_flight()))
    spans.end(span)
    assert (found, spans.in_flight()) == ([span], [])


def test_a_request_that_ends_twice_is_told_once(spans: RequestSpans, buffer: TraceBuffer) -> None:
    span = spans.begin(routed, ORDERS)
    spans.end(span)
    spans.end(span)
    assert len(taken(buffer)) == 1
    assert [spans.begin(routed, ORDERS).row for _ in range(2)] == [0, 1]


def test_what_was_in_flight_when_it_was_stopped_is_not_told(spans: RequestSpans, buffer: TraceBuffer) -> None:
    """Not when it ends while nobody listens, and not when somebody does again."""
    ends, ends_later = spans.begin(routed, ORDERS), spans.begin(routed, ORDERS)
    spans.stop()
    assert spans.in_flight() == []
    spans.end(ends)
    spans.start(buffer)
    new = spans.begin(routed, ORDERS)
    assert new.row == 0
    spans.end(ends_later)
    assert (taken(buffer), spans.in_flight()) == ([], [new])
    spans.end(new)
    assert [event.number for event in taken(buffer)] == [new.number]
    # The rows that they had are nobody's twice.
    assert [spans.begin(routed, ORDERS).row for _ in range(3)] == [0, 1, 2]


def test_a_request_that_began_just_as_it_was_stopped_leaves_nothing(spans: RequestSpans, buffer: TraceBuffer) -> None:
    """Its middleware has asked before whether somebody listens."""

    class Scope(dict[str, str]):
        pass

    scope = Scope(ORDERS)
    spans.stop()
    span = spans.begin(routed, scope)
    spans.end(span)
    spans.start(buffer)
    assert (taken(buffer), spans.in_flight()) == ([], [])
    gone = weakref.ref(scope)
    del span, scope
    gc.collect()
    assert gone() is None


def test_whoever_asks_is_told_whether_somebody_listens() -> None:
    spans, told = RequestSpans(), []
    assert not spans.traced
    spans.on_change(told.append)
    assert told == [False]
    spans.start(TraceBuffer())
    assert spans.traced
    other: list[bool] = []
    spans.on_change(other.append)
    spans.stop()
    assert not spans.traced
    assert (told, other) == ([False, True, False], [True, False])


def test_the_running_context_works_for_it(spans: RequestSpans) -> None:
    span = spans.begin(routed, ORDERS)
    assert WORKS_FOR.get() == 0
    token = spans.enter(span)
    assert WORKS_FOR.get() == span.number
    copied = contextvars.copy_context()
    WORKS_FOR.reset(token)
    assert WORKS_FOR.get() == 0
    assert copied.run(WORKS_FOR.get) == span.number


def test_a_step_is_for_the_request_that_its_context_works_for_or_has_worked_for(
    spans: RequestSpans, buffer: TraceBuffer, deadline: float
) -> None:
    assert request_of_step(0) == 0
    began = time.monotonic_ns()
    span = spans.begin(routed, ORDERS)
    token = spans.enter(span)
    assert request_of_step(time.monotonic_ns()) == span.number
    spans.end(span)
    WORKS_FOR.reset(token)
    ended = taken(buffer)[0].ended_ns
    assert [request_of_step(at) for at in (began, ended, ended + 1)] == [span.number, span.number, 0]
    elsewhere: list[int] = []
    thread = threading.Thread(target=lambda: elsewhere.append(request_of_step(began)))
    thread.start()
    thread.join(deadline)
    assert elsewhere == [0]
    spans.stop()
    assert request_of_step(began) == 0


def test_requests_begin_and_end_in_all_threads(spans: RequestSpans, buffer: TraceBuffer, deadline: float) -> None:
    together = threading.Barrier(6)

    def work() -> None:
        together.wait(deadline)
        for _ in range(300):
            span = spans.begin(routed, ORDERS)
            spans.end(span)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline)
    events = taken(buffer)
    assert sorted(event.number for event in events) == list(range(1, 1801))
    by_row: dict[int, list[RequestEvent]] = {}
    for event in sorted(events, key=lambda event: event.began_ns):
        by_row.setdefault(event.row, []).append(event)
    assert set(by_row) <= set(range(6))
    for row in by_row.values():
        assert all(one.ended_ns <= other.began_ns for one, other in itertools.pairwise(row))
