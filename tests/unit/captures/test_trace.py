"""Traces as captures: what each has of what happens, and what it says of itself."""

from __future__ import annotations

import gzip
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trace_kit.trace_processor import PROBLEMS, TraceProcessor

from profiling_middleware.captures import CAPTURES
from profiling_middleware.captures.sources import Sources
from profiling_middleware.captures.trace import LastSeconds, TraceCapture
from profiling_middleware.config import Settings
from profiling_middleware.lane import Lane
from profiling_middleware.model import CaptureInfo, Label, Trace
from profiling_middleware.sampling.engine import EngineReport, Listener
from profiling_middleware.timer import Timeline
from profiling_middleware.tracing.buffer import COUNTER
from profiling_middleware.tracing.flight import FlightRecorder
from profiling_middleware.tracing.make import make_tracer
from profiling_middleware.tracing.requests import RequestSpans
from profiling_middleware.tracing.tracer import QUEUED

MakeInfo = Callable[..., CaptureInfo]
SECOND = 1_000_000_000


class ScriptedEngine:
    """Sees nothing."""

    name, rate, rate_used = "scripted", 100, 80.0
    limits = ("this engine makes things up", "and sees nothing: at all")

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.now = EngineReport()

    def attach(self, listener: Listener) -> None:
        self.listeners.append(listener)

    def detach(self, listener: Listener) -> None:
        self.listeners.remove(listener)

    def flush(self) -> None:
        """There is nothing."""

    def report(self) -> EngineReport:
        return self.now


class Traced:
    """A process of which traces are taken, on a clock that stands still until it is set."""

    def __init__(self, clock: Any, logger: logging.Logger, folder: Path) -> None:
        self.clock, self.engine, self.requests = clock, ScriptedEngine(), RequestSpans()
        self.timeline = Timeline(now=clock, logger=logger)
        self.lane = Lane("profiling-trace", QUEUED, logger)
        self.tracer = make_tracer(
            Settings(service_name="shop", spool_dir=folder, spool_max_bytes=1 << 20, logger=logger),
            timeline=self.timeline,
            lane=self.lane,
            requests=self.requests,
            find_hooks=lambda: None,
            on_slow=lambda why: None,
        )
        self.flight = FlightRecorder(self.tracer.dropped_by_then)
        self.sources = Sources(self.engine, tracer=self.tracer, flight=self.flight)  # type: ignore[arg-type]

    def request(self, endpoint: str, *, ends: bool = True) -> None:
        span = self.requests.begin(lambda _: (Label("endpoint", endpoint), Label("method", "GET")), None)
        if ends:
            self.requests.end(span)

    def tick(self) -> None:
        self.clock.now += 1
        self.timeline.run_due()

    def settle(self, deadline: float = 10.0) -> None:
        assert self.lane.drain(deadline)

    def fly(self) -> None:
        """From now on the flight recorder records."""
        self.tracer.begin(self.flight, self.sources, full=False)

    def body(self, trace: Trace) -> bytes:
        self.settle()
        body = trace.body.result(0)
        return body if isinstance(body, bytes) else body.read()


@pytest.fixture
def traced(clock: Any, logger: logging.Logger, tmp_path: Path) -> Iterator[Traced]:
    traced = Traced(clock, logger, tmp_path)
    yield traced
    traced.tracer.close()
    traced.settle()


class Read:
    """Requests, those that go on apart, and what the trace says of itself."""

    def __init__(self, processor: TraceProcessor, traced: Traced, trace: Trace) -> None:
        about = """
        select substr(a.key, 7) as name, a.string_value as value
        from slice s join args a using (arg_set_id) where s.category = 'about' and a.key glob 'debug*' order by a.id
        """
        requests = "select name, dur = -1 as goes_on from slice where category = 'request' order by name"
        *answers, problems = processor.query(traced.body(trace), about, requests, PROBLEMS)
        assert problems == []
        self.about = {row["name"]: row["value"] for row in answers[0]}
        self.requests = [row["name"] for row in answers[1] if not row["goes_on"]]
        self.going_on = [row["name"] for row in answers[1] if row["goes_on"]]


@pytest.fixture
def read(traced: Traced, trace_processor: TraceProcessor) -> Callable[[Trace], Read]:
    return lambda trace: Read(trace_processor, traced, trace)


ReadTrace = Callable[[Trace], Read]


def test_a_trace_has_what_happens_from_its_beginning_to_its_end(
    traced: Traced, read: ReadTrace, make_info: MakeInfo
) -> None:
    capture = CAPTURES["trace"](traced.sources, 10.0)
    traced.request("/before")
    capture.begin()
    traced.request("/one")
    traced.tick()
    traced.request("/two")
    traced.request("/goes/on", ends=False)
    trace = capture.end(info := make_info(kind="trace"))
    assert isinstance(trace, Trace)
    assert trace.info is info
    traced.request("/after")
    found = read(trace)
    assert (found.requests, found.going_on) == (["GET /one", "GET /two"], ["GET /goes/on"])
    assert traced.engine.listeners == []


def test_in_full_also_what_is_short_is_told(traced: Traced, make_info: MakeInfo) -> None:
    capture = TraceCapture(traced.sources, 10.0, full=True)
    capture.begin()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(divmod, 7, 3)
    body = traced.body(capture.end(make_info(kind="trace")))
    assert b"divmod" in gzip.decompress(body)


@pytest.mark.parametrize("full", [True, False])
def test_it_says_what_it_is_and_what_it_cost(
    full: bool, traced: Traced, read: ReadTrace, make_info: MakeInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "uvloop", raising=False)  # it would have something to say of that
    traced.engine.now = EngineReport(looks=1_000, cpu_ns=SECOND)
    capture = TraceCapture(traced.sources, 10.0, full=full)
    capture.begin()
    capture._began_ns = (now := time.monotonic_ns()) - 2 * SECOND
    traced.engine.now = EngineReport(looks=1_190, cpu_ns=SECOND + 20_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic_ns", lambda: now)
        trace = capture.end(make_info(kind="trace"))
    about = read(trace).about
    assert about.pop("made by").startswith("profiling_middleware ")
    assert about == {
        "service": "watcher",
        "instance": "web-1-7-0a1b2c3d",
        "capture": "0123456789abcdef (trace, periodic, window of 2026-01-26T15:30:00Z)",
        "detail": "full" if full else "what is long enough to matter",
        "engine": "scripted, 100 looks/s asked, 80.0 allowed by the overhead limit, 95.0 taken",
        "cost of taking": "20ms CPU, 1.00% of a core, shared by all captures of that time",
        "limit": "this engine makes things up",
        "limit 2": "and sees nothing: at all",
    }


def test_it_says_why_it_ended_before_its_time(traced: Traced, read: ReadTrace, make_info: MakeInfo) -> None:
    capture = TraceCapture(traced.sources, 10.0)
    capture.begin()
    assert read(capture.end(make_info(kind="trace", partial="SIGTERM"))).about["partial"] == "SIGTERM"


def test_it_says_what_was_lost_while_it_was_taken(traced: Traced, read: ReadTrace, make_info: MakeInfo) -> None:
    """Events of this capture alone, and chunks of this file."""
    traced.tracer._buffer.dropped = 10
    capture = TraceCapture(traced.sources, 10.0)
    capture.begin()
    traced.tracer._buffer.dropped += 5
    capture._file.left_out = 3
    about = read(capture.end(make_info(kind="trace"))).about
    assert about["dropped"] == "5 events found no room"
    assert about["left out"] == "3 chunks of about a second found no room"


def test_one_that_lost_nothing_says_nothing_of_losses(traced: Traced, read: ReadTrace, make_info: MakeInfo) -> None:
    traced.tracer._buffer.dropped = 10
    capture = TraceCapture(traced.sources, 10.0)
    capture.begin()
    assert {"dropped", "left out"}.isdisjoint(read(capture.end(make_info(kind="trace"))).about)


def test_what_it_says_is_of_bounded_length(traced: Traced, read: ReadTrace, make_info: MakeInfo) -> None:
    capture = TraceCapture(traced.sources, 10.0)
    capture.begin()
    assert read(capture.end(make_info(kind="trace", service="x" * 5_000))).about["service"] == "x" * 1_000


def test_one_that_is_cancelled_stops_everything(traced: Traced) -> None:
    capture = TraceCapture(traced.sources, 10.0)
    capture.begin()
    assert (len(traced.engine.listeners), traced.requests.traced) == (1, True)
    capture.cancel()
    assert (traced.engine.listeners, traced.requests.traced, traced.timeline.run_due()) == ([], False, None)


def test_several_do_not_mind_each_other(traced: Traced, read: ReadTrace, make_info: MakeInfo) -> None:
    first, second, third = (TraceCapture(traced.sources, 10.0, full=full) for full in (False, True, False))
    first.begin()
    traced.request("/a")
    second.begin()
    third.begin()
    traced.request("/b")
    second_trace = second.end(make_info(kind="trace"))
    third.cancel()
    traced.request("/c")
    assert read(second_trace).requests == ["GET /b"]
    assert read(first.end(make_info(kind="trace"))).requests == ["GET /a", "GET /b", "GET /c"]


def test_where_nothing_is_traced_there_is_none(traced: Traced) -> None:
    sources = Sources(traced.engine)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing is traced in this process"):
        TraceCapture(sources, 10.0)
    with pytest.raises(ValueError, match="no trace is recorded all the time in this process"):
        LastSeconds(Sources(traced.engine, tracer=traced.tracer), 0.0, last_seconds=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing is traced in this process"):
        LastSeconds(Sources(traced.engine, flight=traced.flight), 0.0, last_seconds=5)  # type: ignore[arg-type]


# -- the last seconds ------------------------------------------------------------------------------------------------


def last(traced: Traced, seconds: float, info: CaptureInfo) -> Trace:
    capture = LastSeconds(traced.sources, 0.0, last_seconds=seconds)
    capture.begin()
    return capture.end(info)


def test_the_last_seconds_have_what_has_just_happened(traced: Traced, read: ReadTrace, make_info: MakeInfo) -> None:
    """Up to now, and with what goes on; the flight recorder goes on, too."""
    traced.fly()
    traced.request("/a")
    traced.tick()
    traced.request("/b")
    traced.request("/goes/on", ends=False)
    for _ in range(2):
        found = read(last(traced, 60, make_info(kind="trace")))
        assert (found.requests, found.going_on) == (["GET /a", "GET /b"], ["GET /goes/on"])
    traced.request("/c")
    assert read(last(traced, 60, make_info(kind="trace"))).requests == ["GET /a", "GET /b", "GET /c"]
    assert len(traced.engine.listeners) == 1


def test_older_seconds_are_not_in_it(traced: Traced, read: ReadTrace, make_info: MakeInfo) -> None:
    """A chunk of ten seconds ago is one of now that says so."""
    traced.fly()
    traced.request("/old")
    traced.tracer.drain()
    traced.settle()
    chunks = traced.flight._chunks
    ended = chunks[0].ended_ns - 10 * SECOND
    chunks[0] = chunks[0]._replace(began_ns=ended - SECOND, ended_ns=ended)
    traced.request("/new")
    assert read(last(traced, 9, make_info(kind="trace"))).requests == ["GET /new"]
    assert read(last(traced, 60, make_info(kind="trace"))).requests == ["GET /new", "GET /old"]


def test_the_last_seconds_say_what_they_are(traced: Traced, read: ReadTrace, make_info: MakeInfo) -> None:
    traced.fly()
    traced.tracer._buffer.dropped = 4
    info = make_info(kind="trace", trigger="slow request")
    about = read(last(traced, 12.5, info)).about
    assert about["capture"] == "0123456789abcdef (trace, slow request, window of 2026-01-26T15:30:00Z)"
    assert about["asked for"].startswith("the last 12.5 s, up to 20")
    assert (about["limit"], about["dropped"]) == ("this engine makes things up", "4 events found no room")


def test_the_last_seconds_say_what_was_lost_in_them_alone(traced: Traced, read: ReadTrace, make_info: MakeInfo) -> None:
    """A burst of an hour ago is no reason to doubt what has just happened. Chunks are written later than that, too."""
    traced.tracer._buffer.dropped = 1_000
    traced.flight = FlightRecorder(traced.tracer.dropped_by_then)
    traced.sources = replace(traced.sources, flight=traced.flight)
    traced.fly()
    go_on = threading.Event()
    traced.lane.submit(lambda: go_on.wait(10))
    for dropped in (40, 2):
        traced.tracer._buffer.dropped += dropped
        traced.tracer.drain()
    go_on.set()
    traced.settle()
    chunks = traced.flight._chunks
    chunks[0] = chunks[0]._replace(ended_ns=chunks[0].ended_ns - 10 * SECOND)
    traced.flight._left_out.append(chunks[1])
    said = [read(last(traced, seconds, make_info(kind="trace"))).about for seconds in (60, 5)]
    assert [about["dropped"] for about in said] == ["42 events found no room", "2 events found no room"]
    assert [about["left out"] for about in said] == ["1 chunks of about a second found no room"] * 2


def test_what_cannot_be_written_at_last_is_lost_as_well(traced: Traced, read: ReadTrace, make_info: MakeInfo) -> None:
    capture = TraceCapture(traced.sources, 10.0)
    capture.begin()
    traced.tracer._buffer.add(COUNTER, "no such counter", 10**12, 1.0)
    assert read(capture.end(make_info(kind="trace"))).about["dropped"] == "1 events found no room"


def test_there_is_nothing_to_begin_or_to_cancel(traced: Traced) -> None:
    capture = LastSeconds(traced.sources, 0.0, last_seconds=5)
    traced.fly()
    capture.begin()
    capture.cancel()
    assert len(traced.engine.listeners) == 1
