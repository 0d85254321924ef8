"""Who wants a trace gets chunks, by a timeline that the tests set and a lane of its own."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from trace_kit.trace_processor import PROBLEMS, TraceProcessor
from tracing_kit import MS, Chunks, Engine, routed, sample, spin, stack, wait

from profiling_middleware.config import Settings
from profiling_middleware.lane import Lane
from profiling_middleware.model import Body, Reason
from profiling_middleware.timer import Timeline
from profiling_middleware.trace_events import AwaitEvent, TaskEvent, TraceEvent
from profiling_middleware.tracing import tracer
from profiling_middleware.tracing.buffer import AWAIT, COUNTER, TASK, TraceBuffer
from profiling_middleware.tracing.flight import FlightRecorder
from profiling_middleware.tracing.make import make_tracer
from profiling_middleware.tracing.requests import RequestSpans
from profiling_middleware.tracing.sinks import TraceFile
from profiling_middleware.tracing.tracer import LIGHT, LONG_TICKS, QUEUED, Tracer
from profiling_middleware.tracing.writer import TraceWriter


class Source:
    """Keeps what it is told, and has a sentence to say."""

    limits = ("this source sees nothing",)

    def __init__(self) -> None:
        self.buffer: TraceBuffer | None = None
        self.calls: list[bool | None] = []
        """For each start whether it was in full, None for a stop."""
        self.fails: Exception | None = None
        self.goes_on: list[TraceEvent] = []

    def start(self, buffer: TraceBuffer, *, full: bool) -> None:
        self.calls.append(full)
        if self.fails is not None:
            raise self.fails
        self.buffer = buffer

    def going_on(self) -> list[TraceEvent]:
        return self.goes_on

    def stop(self) -> None:
        self.calls.append(None)
        self.buffer = None
        self.goes_on = []


class Parts:
    """A tracer and what it is made of, on a clock that stands still until it is set."""

    def __init__(self, clock: Any, logger: logging.Logger, folder: Path) -> None:
        self.clock = clock
        self.timeline = Timeline(now=clock, logger=logger)
        self.lane = Lane("profiling-trace", QUEUED, logger)
        self.requests, self.source, self.engine = RequestSpans(), Source(), Engine()
        self.writer = TraceWriter(1, "shop", 0, lambda why: None)
        self.tracer = Tracer(
            timeline=self.timeline,
            lane=self.lane,
            writer=self.writer,
            requests=self.requests,
            sources=[self.source],
            new_file=lambda: TraceFile(folder, 1 << 30, logger),
        )

    def begin(self, sink: Any, *, full: bool = False) -> None:
        self.tracer.begin(sink, self.engine, full=full)

    def request(self, endpoint: str) -> None:
        """One that has come and gone."""
        span = self.requests.begin(routed, {"endpoint": endpoint, "method": "GET"})
        self.requests.end(span)

    def tick(self, seconds: int = LONG_TICKS) -> None:
        """So much time passes: as long as a chunk is without full detail."""
        for _ in range(seconds):
            self.clock.now += 1
            self.timeline.run_due()

    def settle(self, deadline: float = 10.0) -> None:
        """All that has been handed to the lane is done."""
        assert self.lane.drain(deadline)


@pytest.fixture
def parts(clock: Any, logger: logging.Logger, tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(clock, logger, tmp_path)
    yield parts
    parts.tracer.close()
    parts.settle()


def held(lane: Lane, deadline: float) -> threading.Event:
    """The lane does nothing until this is set."""
    go_on, begun = threading.Event(), threading.Event()
    lane.submit(lambda: (begun.set(), go_on.wait(deadline)))
    assert begun.wait(deadline)
    return go_on


def test_nothing_is_done_until_somebody_wants_a_trace(parts: Parts) -> None:
    assert (parts.timeline.waits, parts.requests.traced) == (False, False)
    assert (parts.source.calls, parts.engine.listeners) == ([], [])
    assert parts.tracer.limits == ("this source sees nothing",)


@pytest.mark.parametrize(("full", "seconds"), [(False, LONG_TICKS), (True, 1)])
def test_every_few_seconds_it_gets_what_happened(parts: Parts, full: bool, seconds: int) -> None:
    """Each thing once, and the times of chunks follow each other."""
    sink = Chunks()
    parts.begin(sink, full=full)
    assert parts.requests.traced
    for number in range(3):
        parts.request(f"/number{number}")
        parts.tick(seconds)
    parts.settle()
    assert [sink.having(f"/number{number}") for number in range(3)] == [[0], [1], [2]]
    assert all(one[2] == other[1] for one, other in pairwise(sink.chunks))
    assert sink.having("CPU") == sink.having("requests in flight") == [0, 1, 2]
    # Each second anew, for what has been loaded since.
    assert parts.source.calls == [full] * (1 + 3 * seconds)


@pytest.mark.parametrize("kind", ["event", "sample"])
def test_much_is_not_kept_back_as_long(parts: Parts, kind: str) -> None:
    sink = Chunks()
    parts.begin(sink)
    parts.tick(1)
    parts.settle()
    assert sink.chunks == []
    if kind == "event":
        parts.tracer._buffer.add(*([COUNTER, "loop_lag", 10**12, 1.0] * (1 + LIGHT // 4)))
    else:
        parts.engine.listeners[0].receive([sample(10**12, stack("much"), cpu=MS)] * (1 + LIGHT // 6))
    parts.tick(1)
    parts.settle()
    assert len(sink.chunks) == 1


def test_what_the_engine_sees_comes_when_it_is_heard(parts: Parts) -> None:
    sink = Chunks()
    parts.begin(sink)
    (listener,) = parts.engine.listeners
    listener.receive([sample(10**12, stack("early"), cpu=MS)])
    parts.engine.unheard = [sample(10**12, stack("late"), cpu=MS)]
    parts.tick()
    parts.tracer.end(sink)
    parts.settle()
    assert (sink.having("shop.early"), sink.having("shop.late")) == ([0], [1])


def test_what_happened_before_is_not_in_it(parts: Parts) -> None:
    for times in range(2):
        sink = Chunks()
        parts.begin(sink)
        parts.request(f"/{times}")
        parts.tracer.end(sink)
        parts.tracer._buffer.add(COUNTER, "loop_lag", 10**12, 1.0)  # somebody has told it late
        parts.settle()
        assert sink.having(f"/{times}") == [0]
        assert sink.having("event loop lag") == []


def test_at_the_end_it_gets_the_rest_and_all_is_stopped(parts: Parts) -> None:
    sink = Chunks()
    parts.begin(sink)
    parts.tick()
    parts.request("/rest")
    parts.tracer.end(sink)
    parts.tracer.end(sink)
    parts.settle()
    assert sink.having("/rest") == [1]
    assert parts.source.calls[-1] is None
    assert (parts.engine.listeners, parts.requests.traced) == ([], False)
    assert parts.timeline.run_due() is None
    parts.tick()
    parts.settle()
    assert len(sink.chunks) == 2


def test_each_gets_what_happens_from_its_beginning_to_its_end(parts: Parts) -> None:
    """And everything is told in full while anybody wants that."""
    flight, full = Chunks(), Chunks()
    parts.begin(flight)
    parts.request("/before")
    parts.begin(full, full=True)
    parts.request("/during")
    parts.tick(1)
    parts.tracer.end(full)
    parts.request("/after")
    parts.tick()
    parts.settle()
    assert [full.having(path) for path in ("/before", "/during", "/after")] == [[], [0], []]
    assert [flight.having(path) for path in ("/before", "/during", "/after")] == [[0], [1], [3]]
    assert parts.source.calls == [False, True, True, False, *[False] * LONG_TICKS]
    assert len(parts.engine.listeners) == 1
    assert full.chunks == flight.chunks[1:3]


def test_the_most_that_anybody_wants_is_told(parts: Parts) -> None:
    sinks = [Chunks() for _ in range(3)]
    for sink, full in zip(sinks, (True, False, True), strict=True):
        parts.begin(sink, full=full)
    for sink in sinks:
        parts.tracer.end(sink)
    assert parts.source.calls == [True] * 5 + [None]


def test_what_is_cancelled_gets_nothing_more_and_the_others_go_on(parts: Parts) -> None:
    sinks = [Chunks(), Chunks()]
    for sink in sinks:
        parts.begin(sink)
    parts.request("/a")
    parts.tracer.cancel(sinks[0])
    parts.tracer.cancel(sinks[0])
    parts.request("/b")
    parts.tick()
    parts.settle()
    assert [[sink.having(path) for path in ("/a", "/b")] for sink in sinks] == [[[], []], [[0], [0]]]
    assert None not in parts.source.calls
    parts.tracer.cancel(sinks[1])
    assert parts.source.calls[-1] is None
    assert parts.engine.listeners == []
    parts.tick()
    parts.settle()
    assert len(sinks[1].chunks) == 1


def test_closing_lets_go_of_everything(parts: Parts) -> None:
    """The engine goes, too, and is asked for nothing any more."""
    sink = Chunks()
    parts.begin(sink)
    parts.request("/lost")
    parts.engine.flush = parts.engine.detach = None  # type: ignore[assignment,method-assign]
    parts.tracer.close()
    assert parts.source.calls[-1] is None
    assert (parts.requests.traced, parts.timeline.run_due()) == (False, None)
    parts.tracer.end(sink)
    parts.tracer.cancel(sink)
    parts.settle()
    assert sink.chunks == []
    parts.engine = Engine()
    other = Chunks()
    parts.begin(other)
    parts.request("/found")
    parts.tracer.end(other)
    parts.settle()
    assert (other.having("/lost"), other.having("/found")) == ([], [0])


# -- a trace ---------------------------------------------------------------------------------------------------------


def about() -> list[tuple[str, Any]]:
    return [("service", "shop")]


def answer(parts: Parts, body: Any) -> Any:
    parts.settle()
    return body.result(0)


def ask(processor: TraceProcessor, body: Body, sql: str) -> list[tuple[Any, ...]]:
    assert isinstance(body, bytes)
    found, problems = processor.query(body, sql, PROBLEMS)
    assert problems == []
    return [tuple(row.values()) for row in found]


def test_what_sources_tell_as_going_on_is_in_the_one_that_ends(parts: Parts, trace_processor: TraceProcessor) -> None:
    file, other = parts.tracer.new_file(), parts.tracer.new_file()
    parts.begin(file)
    parts.source.goes_on = [TaskEvent(2, time.monotonic_ns(), 0, "Task-7", "polls", 0)]
    parts.tracer.end(file)
    body = answer(parts, parts.tracer.finish(file, about))
    sql = "select name, dur from slice where category = 'task'"
    assert ask(trace_processor, body, sql) == [("polls", -1)]
    parts.begin(other)
    parts.tracer.end(other)
    assert ask(trace_processor, answer(parts, parts.tracer.finish(other, about)), sql) == []


@pytest.mark.parametrize("others", [True, False])
def test_requests_that_go_on_at_the_end_are_in_it(others: bool, parts: Parts, trace_processor: TraceProcessor) -> None:
    """Also when nobody traces them any more by then; and only in this one."""
    flight, file, other = FlightRecorder(), parts.tracer.new_file(), parts.tracer.new_file()
    if others:
        parts.begin(flight)
    parts.begin(file)
    parts.request("/ended")
    span = parts.requests.begin(routed, {"endpoint": "/goes/on", "method": "GET"})
    parts.tracer.end(file)
    parts.requests.end(span)
    body = answer(parts, parts.tracer.finish(file, about))
    assert parts.tracer._in_flight == []  # they hold requests
    sql = "select name, dur = -1 as goes_on from slice where category = 'request' order by name"
    assert ask(trace_processor, body, sql) == [("GET /ended", 0), ("GET /goes/on", 1)]
    parts.begin(other)
    parts.tracer.end(other)
    body = answer(parts, parts.tracer.finish(other, about))
    assert ask(trace_processor, body, sql) == []


@pytest.mark.parametrize("when", ["before the events are fetched", "after it"])
def test_what_ends_just_at_the_end_is_told_once(
    when: str, parts: Parts, trace_processor: TraceProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests and tasks end on other threads: either they have ended in this trace, or they go on."""
    file = parts.tracer.new_file()
    parts.begin(file)
    span = parts.requests.begin(routed, {"endpoint": "/ends", "method": "GET"})
    began, fetch = time.monotonic_ns(), parts.tracer._buffer.fetch
    parts.source.goes_on = [
        TaskEvent(0, began, 0, "Task-7", "polls", 0),
        AwaitEvent(0, began + 1_000, 0, "its turn"),
        TaskEvent(1, began, 0, "Task-8", "stays", 0),
    ]

    def end() -> None:
        parts.requests.end(span)
        parts.tracer._buffer.add(AWAIT, 0, began + 1_000, began + 2 * MS, "its turn")
        parts.tracer._buffer.add(TASK, 0, began, began + 3 * MS, "Task-7", "polls", 0)

    def fetches() -> list[object]:
        if "before" in when:
            end()
            return fetch()
        slots = fetch()
        end()
        return slots

    with monkeypatch.context() as patch:
        patch.setattr(parts.tracer._buffer, "fetch", fetches)
        parts.tracer.end(file)
    body = answer(parts, parts.tracer.finish(file, about))
    sql = "select name, dur = -1 from slice where category in ('request', 'task', 'await') order by name, ts"
    ends = int("after" in when)
    expected = [("GET /ends", ends), ("polls", ends), ("stays", 1), ("waits: its turn", ends)]
    assert ask(trace_processor, body, sql) == expected


def test_a_trace_says_what_it_is_once_all_has_been_written(parts: Parts, trace_processor: TraceProcessor) -> None:
    """What was left out is known only then."""
    file = parts.tracer.new_file()
    parts.begin(file)
    parts.tracer.end(file)
    parts.tracer.do(lambda: setattr(file, "left_out", 7))
    body = answer(parts, parts.tracer.finish(file, lambda: [("left out", file.left_out)]))
    sql = "select s.name, a.key, a.int_value from slice s join args a using (arg_set_id) where key glob 'debug*'"
    assert ask(trace_processor, body, sql) == [("profiling_middleware trace", "debug.left out", 7)]


@pytest.mark.parametrize("others", [True, False])
def test_what_was_seen_is_kept_only_while_somebody_listens(others: bool, parts: Parts) -> None:
    """The next time the engine has other stacks of the same frames, and those would come to be more and more."""
    flight, file, seen = FlightRecorder(), parts.tracer.new_file(), stack("buy", "serve")
    if others:
        parts.begin(flight)
    before = sys.getrefcount(seen)
    parts.begin(file)
    (listener,) = parts.engine.listeners
    listener.receive(
        [sample(10**12, seen, cpu=5 * MS), sample(10**12 + 9 * MS, seen, wall=9 * MS, reason=Reason.SLEEP)]
    )
    listener.receive_lock_waits([wait(10**12, 2 * MS, seen)])
    parts.tracer.end(file)
    answer(parts, parts.tracer.finish(file, about))
    assert (sys.getrefcount(seen) == before) is not others


@pytest.mark.parametrize("others", [True, False])
def test_what_is_cancelled_last_leaves_nothing_either(others: bool, parts: Parts) -> None:
    """The flight recorder is cancelled when profiling is switched off, and nobody finishes anything after it."""
    flight, sink, seen = FlightRecorder(), Chunks(), stack("buy", "serve")
    if others:
        parts.begin(flight)
    before = sys.getrefcount(seen)
    parts.begin(sink)
    parts.engine.listeners[0].receive([sample(10**12, seen, cpu=5 * MS)])
    parts.tick()
    parts.tracer.cancel(sink)
    parts.settle()
    assert (sys.getrefcount(seen) == before) is not others


def test_what_fails_while_it_is_finished_is_its_result(parts: Parts) -> None:
    file = parts.tracer.new_file()
    parts.begin(file)
    parts.tracer.end(file)
    body = parts.tracer.finish(file, lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    parts.settle()
    assert isinstance(body.exception(0), ZeroDivisionError)


def test_where_too_much_waits_to_be_written_a_trace_is_refused(parts: Parts, deadline: float) -> None:
    file = parts.tracer.new_file()
    go_on = held(parts.lane, deadline)
    while parts.tracer.do(int):
        pass
    body = parts.tracer.finish(file, about)
    assert isinstance(body.exception(0), RuntimeError)
    go_on.set()


def test_what_is_done_after_the_chunks_finds_them(parts: Parts) -> None:
    sink, found = Chunks(), []
    parts.begin(sink)
    parts.request("/a")
    parts.tracer.drain(flush=True)
    assert parts.tracer.do(lambda: found.append(sink.having("/a")))
    parts.settle()
    assert found == [[0]]


# -- losses ----------------------------------------------------------------------------------------------------------


def test_what_finds_no_room_is_counted(parts: Parts, deadline: float) -> None:
    """What waits to be written is bounded; what is lost is told by a counter from then on."""
    sink = Chunks()
    parts.begin(sink)
    go_on = held(parts.lane, deadline)
    for _ in range(QUEUED):
        parts.tick()
    assert parts.tracer.dropped == 0
    parts.request("/lost")
    parts.request("/lost")
    parts.engine.listeners[0].receive([sample(10**12, stack("lost"), cpu=MS)] * 3)
    parts.tracer.drain()
    assert parts.tracer.dropped == 5
    go_on.set()
    parts.settle()
    parts.tick()
    parts.settle()
    assert len(sink.chunks) == QUEUED + 1
    assert sink.having("/lost") == sink.having("shop.lost") == []
    assert sink.having("events dropped") == [QUEUED]
    # The next chunk begins where the lost one ended.
    assert sink.chunks[-2][2] < sink.chunks[-1][1]


def test_what_waits_is_bounded_by_its_memory_too(
    parts: Parts, deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch may be as large as it likes; those behind it have to find room beside each other."""
    sink = Chunks()
    parts.begin(sink)
    go_on = held(parts.lane, deadline)
    parts.tick()
    large, small = [sample(10**12, stack("large"), cpu=MS)] * 3, [sample(10**12, stack("small"), cpu=MS)]
    monkeypatch.setattr(tracer, "MOST_WAITING", 6 * len(large) + parts.tracer._submitted - parts.tracer._written)
    parts.engine.listeners[0].receive(large)
    parts.tracer.drain()
    assert parts.tracer.dropped == 0
    parts.engine.listeners[0].receive(small)
    parts.tracer.drain()
    assert parts.tracer.dropped == len(small)
    go_on.set()
    parts.settle()
    assert len(sink.having("shop.large")) == 1
    assert sink.having("shop.small") == []
    parts.engine.listeners[0].receive(small)
    parts.tracer.drain()
    parts.settle()
    assert len(sink.having("shop.small")) == 1
    assert parts.tracer.dropped == len(small)


def test_losses_of_all_kinds_are_added_up(parts: Parts) -> None:
    parts.begin(Chunks())
    parts.tracer._buffer.dropped = 10
    parts.tracer._seen.dropped = 100
    assert parts.tracer.dropped == 110


# -- failures --------------------------------------------------------------------------------------------------------


def test_what_fails_once_does_not_end_the_trace(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Chunks()
    parts.begin(sink)
    parts.request("/a")
    with monkeypatch.context() as patch:
        patch.setattr(parts.tracer._counters, "read", lambda: 1 / 0)
        parts.tick(1)
    parts.tick()
    parts.settle()
    assert sink.having("/a") == [0]
    assert caplog.messages == ["profiling: an internal step failed; the service is not affected"]


def test_a_sink_that_could_not_be_begun_is_not_kept(parts: Parts) -> None:
    """Nobody would end it."""
    parts.source.fails = OSError("no")
    sink = Chunks()
    with pytest.raises(OSError, match="no"):
        parts.begin(sink)
    assert (parts.engine.listeners, parts.requests.traced, parts.timeline.run_due()) == ([], False, None)
    parts.source.fails = None
    parts.engine.fails = OSError("no engine")
    with pytest.raises(OSError, match="no engine"):
        parts.begin(sink)
    parts.engine.fails = None
    parts.begin(sink)
    parts.request("/a")
    parts.tracer.end(sink)
    parts.settle()
    assert sink.having("/a") == [0]


def test_a_chunk_that_cannot_be_written_does_not_end_the_trace(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    sink = Chunks()
    parts.begin(sink)
    parts.tracer._buffer.add(COUNTER, "no such counter", 10**12, 1.0)
    parts.request("/lost")
    parts.engine.listeners[0].receive([sample(10**12, stack("lost"), cpu=MS)] * 3)
    parts.tracer.drain()
    parts.settle()
    assert parts.tracer.dropped == 5
    parts.request("/a")
    parts.tick()
    parts.settle()
    assert sink.having("/a") == sink.having("events dropped") == [0]
    assert caplog.messages == ["profiling: an internal step failed; the service is not affected"]


def test_in_a_hurry_there_are_no_pauses(parts: Parts) -> None:
    assert not parts.writer.hurry
    parts.tracer.hurry()
    assert parts.writer.hurry


# -- all of it -------------------------------------------------------------------------------------------------------


def test_all_parts_put_together(
    clock: Any,
    logger: logging.Logger,
    tmp_path: Path,
    native: Any,
    trace_processor: TraceProcessor,
    deadline: float,
) -> None:
    """With real steps, real work and real garbage; the engine alone is the test's."""
    timeline, lane = Timeline(now=clock, logger=logger), Lane("profiling-trace", QUEUED, logger)
    requests, engine, slow = RequestSpans(), Engine(), []
    settings = Settings(service_name="shop", spool_dir=tmp_path, slow_request=0.01, logger=logger)
    tracer = make_tracer(
        settings, timeline=timeline, lane=lane, requests=requests, find_hooks=lambda: native, on_slow=slow.append
    )

    async def serves() -> None:
        await asyncio.get_running_loop().run_in_executor(executor, spin, 2 * MS)
        spin(120 * MS)
        gc.collect()

    async def main() -> None:
        span = requests.begin(routed, {"endpoint": "/orders", "method": "GET"})
        token = requests.enter(span)
        try:
            await asyncio.create_task(serves(), name="its task")
        finally:
            requests.end(span)
            token.var.reset(token)

    file = tracer.new_file()
    tracer.begin(file, engine, full=True)
    with ThreadPoolExecutor(1, "worker") as executor:
        asyncio.run(main())
        tracer.end(file)
    body = tracer.finish(file, about)
    assert lane.drain(deadline)
    sql = "select name, category, dur >= 2000000 as long from slice"
    found = ask(trace_processor, body.result(deadline), sql)
    names = {(re.sub(r".*<locals>\.", "", name), category) for name, category, long in found if long}
    assert names >= {
        ("GET /orders", "request"),
        ("serves", "task"),
        ("serves", "stall"),
        ("spin", "executor"),
    }
    assert "gc" in {category for _, category, _ in found}
    assert slow == ["stall"]
    flows = ask(
        trace_processor,
        body.result(deadline),
        "select distinct a.category as a, b.category as b from flow join slice a on a.id = slice_out"
        " join slice b on b.id = slice_in",
    )
    assert {category for pair in flows for category in pair} == {"request", "task", "step", "stall", "executor"}


def test_making_one_does_nothing(clock: Any, logger: logging.Logger, deadline: float) -> None:
    asked: list[int] = []
    find: Callable[[], None] = lambda: asked.append(1)  # noqa: E731
    callbacks = gc.callbacks[:]
    tracer = make_tracer(
        Settings(logger=logger),
        timeline=Timeline(now=clock, logger=logger),
        lane=Lane("profiling-trace", QUEUED, logger),
        requests=RequestSpans(),
        find_hooks=find,
        on_slow=asked.append,
    )
    assert (asked, gc.callbacks, tracer.limits, tracer.dropped) == ([], callbacks, (), 0)
    tracer.close()
    assert asked == []
