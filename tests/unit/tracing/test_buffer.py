"""Events come out as they went in, a bounded number of them."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator

import pytest
from tracing_kit import taken

from profiling_middleware.model import Label
from profiling_middleware.trace_events import (
    EVENT_TYPES,
    AwaitEvent,
    CollectionEvent,
    CounterEvent,
    RequestEvent,
    StepEvent,
    TaskEvent,
    TraceEvent,
    WorkEvent,
)
from profiling_middleware.tracing.buffer import (
    AWAIT,
    COLLECTION,
    COUNTER,
    REQUEST,
    STEP,
    TASK,
    WORK,
    TraceBuffer,
    events_of,
)

EVENTS: list[tuple[int, TraceEvent]] = [
    (REQUEST, RequestEvent(0, 1, 100, 0, 200, (Label("endpoint", "/a"),), 200)),
    (STEP, StepEvent(7, 100, 200, "main", "Task-1", 1, 0, (3, 4))),
    (TASK, TaskEvent(0, 100, 200, "Task-1", "main", 1)),
    (AWAIT, AwaitEvent(0, 100, 200, "sleep")),
    (WORK, WorkEvent(7, 100, 200, 300, "work", 1)),
    (COLLECTION, CollectionEvent(7, 100, 200, 2, 10, 0)),
    (COUNTER, CounterEvent("cpu", 100, 12.5)),
]


def test_each_kind_comes_out_as_it_went_in_and_in_its_order(buffer: TraceBuffer) -> None:
    for kind, event in EVENTS * 3:
        buffer.add(kind, *event)
    assert taken(buffer) == [event for _, event in EVENTS] * 3
    assert taken(buffer) == []
    assert {type(event) for _, event in EVENTS} == set(EVENT_TYPES)


def test_what_finds_no_room_is_counted_and_room_is_made_by_fetching() -> None:
    buffer = TraceBuffer(limit=9)
    for number in range(5):
        buffer.add(COUNTER, "cpu", number, 1.0)
    # Three of four slots each have begun before the ninth.
    assert [event.time_ns for event in taken(buffer)] == [0, 1, 2]
    assert buffer.dropped == 2
    buffer.add(COUNTER, "cpu", 7, 1.0)
    assert [event.time_ns for event in taken(buffer)] == [7]
    assert buffer.dropped == 2


def test_what_was_fetched_is_not_changed_by_what_comes(buffer: TraceBuffer) -> None:
    buffer.add(COUNTER, "cpu", 1, 1.0)
    slots = buffer.fetch()
    buffer.add(COUNTER, "cpu", 2, 1.0)
    assert [event.time_ns for event in events_of(slots)] == [1]


def test_nothing_in_it_wakes_the_garbage_collector(buffer: TraceBuffer) -> None:
    gc.collect()
    gc.disable()
    try:
        before = gc.get_count()[0]
        for number in range(5_000):
            buffer.add(COUNTER, "cpu", number, 1.0)
        assert gc.get_count()[0] - before < 100
    finally:
        gc.enable()


@pytest.fixture
def _switching() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_switching")
@pytest.mark.parametrize("limit", [10**9, 400])
def test_threads_add_while_it_is_fetched(limit: int, deadline: float) -> None:
    """Each event is whole, those of a thread are in their order, and what is missing was counted."""
    buffer = TraceBuffer(limit)
    threads, each = 4, 3_000
    together, fetched = threading.Barrier(threads + 1), []

    def work(number: int) -> None:
        together.wait(deadline)
        for count in range(each):
            if count % 2:
                buffer.add(COUNTER, str(number), count, 1.0)
            else:
                buffer.add(WORK, number, count, count, count, "name", 0)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    together.wait(deadline)
    while any(worker.is_alive() for worker in workers):
        fetched += buffer.fetch()
    fetched += buffer.fetch()
    for worker in workers:
        worker.join(deadline)

    counts: dict[int, list[int]] = {number: [] for number in range(threads)}
    for event in events_of(fetched):
        if isinstance(event, CounterEvent):
            counts[int(event.counter)].append(event.time_ns)
        else:
            assert isinstance(event, WorkEvent)
            assert event.began_ns == event.ended_ns == event.queued_ns
            counts[event.tid].append(event.began_ns)
    assert all(sorted(set(found)) == found for found in counts.values())
    assert sum(map(len, counts.values())) + buffer.dropped == threads * each
    assert (buffer.dropped == 0) == (limit == 10**9)
