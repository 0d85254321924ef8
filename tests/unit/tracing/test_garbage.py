"""Runs of the real garbage collector."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import pytest
from tracing_kit import taken

from profiling_middleware.tracing import garbage
from profiling_middleware.tracing.buffer import TraceBuffer
from profiling_middleware.tracing.garbage import GarbageCollections


@pytest.fixture
def collections() -> Iterator[GarbageCollections]:
    """No run comes by itself, and what others have left is gone."""
    collections = GarbageCollections()
    gc.collect()
    gc.disable()
    yield collections
    collections.stop()
    gc.enable()


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def collect(generation: int = 2) -> tuple[int, int]:
    first = time.monotonic_ns()
    gc.collect(generation)
    return first, time.monotonic_ns()


def test_each_run_is_told_with_its_times(collections: GarbageCollections, buffer: TraceBuffer) -> None:
    collections.start(buffer, full=True)
    first, last = collect()
    (event,) = taken(buffer)
    assert first <= event.began_ns < event.ended_ns <= last
    assert (event.tid, event.generation, event.uncollectable) == (threading.get_native_id(), 2, 0)


def test_what_it_found_is_told(collections: GarbageCollections, buffer: TraceBuffer) -> None:
    collections.start(buffer, full=True)
    for generation in (0, 1, 2):
        for _ in range(100):
            Cycle()
        collect(generation)
    events = taken(buffer)
    assert [event.generation for event in events] == [0, 1, 2]
    # An object and its attributes, where these are an object of their own.
    assert all(100 <= event.collected <= 210 for event in events)


def test_short_runs_are_told_in_full_only(
    collections: GarbageCollections, buffer: TraceBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "_LEAST_NS", 10**15)
    for full, told in ((False, 0), (True, 1), (False, 0)):
        collections.start(buffer, full=full)
        collect()
        assert len(taken(buffer)) == told
    monkeypatch.setattr(garbage, "_LEAST_NS", 1)
    collections.start(buffer, full=False)
    collect()
    assert len(taken(buffer)) == 1


def test_it_is_told_in_which_thread(collections: GarbageCollections, buffer: TraceBuffer, deadline: float) -> None:
    collections.start(buffer, full=True)
    thread = threading.Thread(target=collect)
    thread.start()
    thread.join(deadline)
    assert [event.tid for event in taken(buffer)] == [thread.native_id]


def test_nothing_is_told_when_it_is_stopped_and_nobody_is_called(
    collections: GarbageCollections, buffer: TraceBuffer
) -> None:
    before = gc.callbacks[:]
    collections.stop()
    for _ in range(2):
        collections.start(buffer, full=True)
        collections.start(buffer, full=False)
        collections.start(buffer, full=True)
        assert len(gc.callbacks) == len(before) + 1
        collections.stop()
        collections.stop()
        assert gc.callbacks == before
        collect()
        assert taken(buffer) == []


def test_a_run_that_it_has_seen_a_part_of_is_not_told(collections: GarbageCollections, buffer: TraceBuffer) -> None:
    """One goes on when it starts, or when it stops; finalizers run in it."""

    class Starts:
        def __init__(self, act: object) -> None:
            self.itself, self.act = self, act

        def __del__(self) -> None:
            self.act()  # type: ignore[operator]

    def starts() -> None:
        collections.start(buffer, full=True)

    def stops_and_starts() -> None:
        collections.stop()
        collections.start(buffer, full=True)

    for act in (starts, stops_and_starts):
        Starts(act)
        collect()
        assert taken(buffer) == []
    first, last = collect()
    (event,) = taken(buffer)
    assert first <= event.began_ns <= event.ended_ns <= last


def test_somebody_may_have_emptied_the_list(collections: GarbageCollections, buffer: TraceBuffer) -> None:
    before = gc.callbacks[:]
    collections.start(buffer, full=True)
    gc.callbacks.clear()
    collections.stop()
    assert gc.callbacks == []
    gc.callbacks.extend(before)
