"""Batches become chunks that Perfetto reads, and what takes too long is told."""

from __future__ import annotations

import asyncio
import os
import time
import tracemalloc
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from trace_kit.trace_processor import PROBLEMS, Row, TraceProcessor
from tracing_kit import MS, SECOND, WORKER, Chunks, routed, sample, stack, wait

from profiling_middleware.encoders.packets import PythonPackets, new_packets
from profiling_middleware.model import Contention, Label, Reason, Sample
from profiling_middleware.trace_events import AwaitEvent, TaskEvent
from profiling_middleware.tracing.buffer import (
    AWAIT,
    COLLECTION,
    COUNTER,
    REQUEST,
    STEP,
    TASK,
    WORK,
    TraceBuffer,
)
from profiling_middleware.tracing.drawing import Drawing
from profiling_middleware.tracing.requests import RequestSpans
from profiling_middleware.tracing.seen import Seen, SeenSamples, SeenWaits
from profiling_middleware.tracing.stalls import STALL_NS
from profiling_middleware.tracing.tasks import FollowedTasks
from profiling_middleware.tracing.writer import Batch, TraceWriter

NOW = 10**12
TID = WORKER.native_id
F, G = stack("f", "main"), stack("g", "main")
SLICES = f"select name, (ts - {NOW}) / 1000000.0 as ts, dur / 1000000.0 as dur, depth from slice order by ts, depth"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def writer(told: list[str], monkeypatch: pytest.MonkeyPatch) -> TraceWriter:
    """In a trace of its, times since the machine was started are those of the monotonic clock."""
    monkeypatch.setattr("profiling_middleware.encoders.perfetto._clocks_now", lambda: (0, 0))
    return TraceWriter(os.getpid(), "shop", 300 * MS, told.append)


def batch(
    *events: tuple[Any, ...],
    began: int = 0,
    ended: int = SECOND,
    final: bool = False,
    samples: Iterable[Sample] = (),
    lock_waits: Sequence[Contention] = (),
    task_lock_waits: Sequence[Contention] = (),
) -> Batch:
    """Of what happened between two moments after NOW."""
    buffer = TraceBuffer()
    for event in events:
        buffer.add(*event)
    return Batch(
        slots=buffer.fetch(),
        seen=Seen(SeenSamples(samples), SeenWaits(lock_waits), SeenWaits(task_lock_waits)),
        threads=[(TID, "worker")],
        began_ns=NOW + began,
        ended_ns=NOW + ended,
        full=True,
        final=final,
    )


def step(began: int, ended: int, name: str = "serve") -> tuple[Any, ...]:
    return STEP, TID, NOW + began, NOW + ended, name, "Task-1", 0, 0, ()


def request(began: int, ended: int) -> tuple[Any, ...]:
    labels = Label("endpoint", "/orders"), Label("method", "GET")
    return REQUEST, 0, 1, NOW + began, 0, NOW + ended, labels, 200


class Reader:
    def __init__(self, processor: TraceProcessor) -> None:
        self._processor = processor

    def ask(self, body: bytes, *statements: str) -> list[list[Row]]:
        *answers, problems = self._processor.query(body, *statements, PROBLEMS)
        assert problems == []
        return answers

    def slices(self, body: bytes) -> list[tuple[Any, ...]]:
        """Name, beginning and duration in milliseconds, depth."""
        return [tuple(row.values()) for row in self.ask(body, SLICES)[0]]


@pytest.fixture
def reader(trace_processor: TraceProcessor) -> Reader:
    return Reader(trace_processor)


# -- chunks ----------------------------------------------------------------------------------------------------------


def test_everything_that_happened_is_in_the_chunk(writer: TraceWriter, reader: Reader) -> None:
    sinks = [Chunks(), Chunks()]
    everything = batch(
        request(0, 90 * MS),
        step(MS, 2 * MS),
        (TASK, 0, NOW + MS, NOW + 9 * MS, "Task-1", "serve", 1),
        (AWAIT, 0, NOW + 2 * MS, NOW + 8 * MS, "sleep"),
        (WORK, TID, NOW, NOW + 10 * MS, NOW + 20 * MS, "resize", 1),
        (COLLECTION, TID, NOW + 11 * MS, NOW + 12 * MS, 2, 5, 0),
        (COUNTER, "requests", NOW + 5 * MS, 3),
        samples=[
            sample(NOW + 60 * MS, F, cpu=20 * MS),
            sample(NOW + 80 * MS, F, wall=20 * MS, reason=Reason.NETWORK),
        ],
        lock_waits=[wait(NOW + 19 * MS, 4 * MS, F)],
        task_lock_waits=[wait(NOW + 50 * MS, 7 * MS, G, reason=Reason.AWAIT)],
    )
    writer.write(everything, sinks)
    assert [[chunk[1:] for chunk in sink.chunks] for sink in sinks] == [[(NOW, NOW + SECOND)]] * 2
    assert sinks[0].content == sinks[1].content
    threads = f"select name from thread where tid = {TID}"
    slices, counts, samples, names = reader.ask(
        sinks[0].content,
        SLICES,
        "select value from counter c join counter_track t on t.id = c.track_id where unit = 'count'",
        "select count() as n from perf_sample",
        threads,
    )
    assert sorted(tuple(row.values()) for row in slices) == sorted(
        [
            ("GET /orders", 0, 90, 0),
            ("serve", 1, 1, 0),
            ("serve", 1, 8, 0),
            ("waits: sleep", 2, 6, 1),
            ("resize", 10, 10, 0),
            ("garbage collection", 11, 1, 1),
            ("waits for a lock", 15, 4, 1),
            ("runs", 40, 20, 0),
            ("network", 60, 20, 0),
            ("waits for a lock", 43, 7, 0),
        ]
    )
    assert (counts, samples, names) == ([{"value": 3}], [{"n": 1}], [{"name": "worker"}])


def test_a_task_that_outlives_a_chunk_lies_around_its_waits(writer: TraceWriter, reader: Reader) -> None:
    """It is told when it has ended, and they are before: as real steps tell of it, with the times of the test."""
    buffer, sink = TraceBuffer(), Chunks()
    followed = FollowedTasks(buffer)

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        followed.created(task)
        began = next(iter(followed._tasks.values())).began_ns
        for second in range(3):
            at = began + second * SECOND
            followed.stepped(task, None, at + 5 * MS, at + 6 * MS)
            write(began)

    def write(began: int) -> None:
        taken = buffer.fetch()
        writer.write(
            Batch(
                slots=taken,
                seen=Seen(SeenSamples(), SeenWaits(), SeenWaits()),
                threads=[],
                began_ns=began,
                ended_ns=began,
                full=True,
                final=False,
            ),
            [sink],
        )

    loop = asyncio.new_event_loop()
    task = loop.create_task(main(), name="it")
    loop.run_until_complete(task)
    loop.close()
    (known,) = followed._tasks.values()
    ended = known.began_ns + 2_010 * MS
    followed.stepped(task, None, ended - MS, ended)
    write(known.began_ns)

    sql = """
    select s.name, round(s.dur / 1e6) as dur, s.depth from slice s join track t on t.id = s.track_id
    where t.name = 'tasks' order by s.ts, s.depth
    """
    (rows,) = reader.ask(sink.content, sql)
    assert [tuple(row.values()) for row in rows] == [
        (main.__qualname__, 2_010, 0),
        ("waits: its turn", 5, 1),
        (f"waits: {main.__qualname__}", 999, 1),
        (f"waits: {main.__qualname__}", 999, 1),
        (f"waits: {main.__qualname__}", 3, 1),
    ]


def test_states_too_short_to_be_told_apart_do_not_reach_into_what_follows(writer: TraceWriter, reader: Reader) -> None:
    """In the next chunk."""
    sink = Chunks()
    writer.write(batch(samples=[sample(NOW + 300, F, cpu=300)]), [sink])
    writer.write(batch(samples=[sample(NOW + 5 * MS, F, wall=5 * MS - 300, reason=Reason.NETWORK)]), [sink])
    writer.write(batch(samples=[sample(NOW + 6 * MS, F, cpu=MS)]), [sink])
    assert reader.slices(sink.content) == [("network", 0, 5, 0), ("runs", 5, 1, 0)]


def test_a_trace_ends_with_what_goes_on_and_what_it_is(writer: TraceWriter, reader: Reader) -> None:
    spans = RequestSpans()
    spans.start(TraceBuffer())
    goes_on, fails = spans.begin(routed, {"endpoint": "/a", "method": "GET"}), spans.begin(explode, {})
    no_row = spans.begin(routed, {"endpoint": "/none", "method": "GET"})
    no_row.row = -1
    goes_on.began_ns = fails.began_ns = NOW
    about = Drawing.about(NOW + SECOND, [("service", "shop")])
    others = [TaskEvent(3, NOW + MS, 0, "Task-1", "polls", 0), AwaitEvent(3, NOW + 2 * MS, 0, "sleep")]
    body = writer.last_chunk([goes_on, fails, no_row], others, about)
    assert sorted(reader.slices(body)) == [
        ("<no route>", 0, -1e-6, 0),
        ("GET /a", 0, -1e-6, 0),
        ("polls", 1, -1e-6, 0),
        ("profiling_middleware trace", 1_000, 0, 0),
        ("waits: sleep", 2, -1e-6, 1),
    ]


def explode(_: object) -> None:
    raise ValueError


# -- stalls and slow requests ----------------------------------------------------------------------------------------


def test_a_stall_is_drawn_once_with_what_it_did(writer: TraceWriter, reader: Reader) -> None:
    """In a later chunk: its samples are waited for."""
    sink = Chunks()
    stalled = STALL_NS + 50 * MS
    writer.write(batch(step(0, stalled), step(stalled + MS, stalled + 3 * MS, "short")), [sink])
    assert sink.having("stall") == []
    writer.write(batch(samples=[sample(NOW + stalled, G, cpu=stalled)], ended=2 * SECOND), [sink])
    writer.write(batch(ended=9 * SECOND), [sink])
    assert sink.having("stall: serve") == [1]
    (found,) = reader.ask(
        sink.content,
        "select s.name, s.dur, a.string_value as f from slice s left join args a on a.arg_set_id ="
        " s.arg_set_id and a.key = 'debug.function' where s.category in ('stall', 'step') order by s.ts",
    )
    assert [tuple(row.values()) for row in found] == [("stall: serve", stalled, "shop.g"), ("short", 2 * MS, None)]


@pytest.mark.parametrize(("final", "drawn"), [(True, [0]), (False, [1])])
def test_a_stall_that_nobody_saw_is_drawn_at_the_end(final: bool, drawn: list[int], writer: TraceWriter) -> None:
    sink = Chunks()
    writer.write(batch(step(0, STALL_NS), final=final), [sink])
    writer.write(batch(ended=9 * SECOND), [sink])
    assert sink.having("stall: serve") == drawn


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([request(0, 299 * MS), step(0, 299 * MS)], []),
        ([request(0, 300 * MS)], ["slow request"]),
        ([step(0, 300 * MS)], ["stall"]),
        ([step(0, 400 * MS), request(0, 400 * MS), request(0, 900 * MS)], ["stall"]),
        ([(WORK, TID, NOW, NOW, NOW + SECOND, "resize", 0)], []),
    ],
)
def test_what_takes_too_long_is_told_once_a_chunk(
    events: list[tuple[Any, ...]], expected: list[str], writer: TraceWriter, told: list[str]
) -> None:
    writer.write(batch(*events), [])
    assert told == expected
    for _ in range(3):
        writer.write(batch(ended=9 * SECOND), [])
    assert told == expected


def test_it_is_told_when_the_chunk_has_been_handed_out() -> None:
    """Whoever takes what the flight recorder has then finds it there."""
    sink, found = Chunks(), []
    writer = TraceWriter(1, "shop", 300 * MS, lambda why: found.append((why, sink.having("/orders"))))
    writer.write(batch(request(0, SECOND)), [sink])
    assert found == [("slow request", [0])]


def test_without_a_bound_nothing_takes_too_long(told: list[str]) -> None:
    writer = TraceWriter(1, "shop", 0, told.append)
    writer.write(batch(request(0, SECOND), step(0, SECOND)), [])
    assert told == []


# -- pauses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hurry", [False, True])
def test_it_lets_others_work_unless_in_a_hurry(
    hurry: bool, writer: TraceWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reading of the clock is a tenth of a millisecond later: it works two, and rests."""
    now, rests, sink = [0.0], [], Chunks()

    def read() -> float:
        now[0] += 0.0001
        return now[0]

    monkeypatch.setattr(time, "perf_counter", read)
    monkeypatch.setattr(time, "sleep", rests.append)
    writer.hurry = hurry
    events = [step(number * MS, number * MS + MS) for number in range(300)]
    writer.write(batch(*events), [sink])
    monkeypatch.undo()
    assert bool(rests) is not hurry
    assert set(rests) <= {0.001}
    assert sink.content.count(b"serve") == 1


def test_the_size_of_a_batch_is_how_many_are_lost_with_it() -> None:
    events: Sequence[tuple[Any, ...]] = [request(0, MS), step(0, MS), (COUNTER, "cpu", NOW, 1.0)]
    seen = {"samples": [sample(NOW, F, cpu=1)] * 2, "lock_waits": [wait(NOW, MS, F)], "task_lock_waits": []}
    assert batch(*events, **seen).size == 6


def test_drawing_takes_little_more_memory_than_the_chunk(writer: TraceWriter) -> None:
    """20,000 waits of one stack, which has five kilobytes as a text."""
    deep = stack(*(f"services.orders.repository.OrderRepository.method{number}" for number in range(100)))
    waits = [wait(NOW + number * MS, MS, deep) for number in range(1, 20_001)]
    writer.hurry = True
    sink = Chunks()
    taken = batch(lock_waits=waits, task_lock_waits=waits)
    tracemalloc.start()
    try:
        writer.write(taken, [sink])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert writer.dropped == 0
    assert len(sink.content) > 1_000_000
    # Python's own packets are tuples until they are in order; drawn all at once these waits take 174 MB.
    most = 40 if isinstance(new_packets(0), PythonPackets) else 16
    assert peak < most * 1024 * 1024
