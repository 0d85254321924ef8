"""What is drawn of what happened: tracks, names, arguments and arrows."""

from __future__ import annotations

from typing import Any

import pytest
from tracing_kit import MS, WORKER, sample, stack, wait

from profiling_middleware.encoders.trace_items import Count, Instant, Slice, StackSample
from profiling_middleware.model import Frame, Label, Reason, Stack, Thread
from profiling_middleware.trace_events import (
    AwaitEvent,
    CollectionEvent,
    CounterEvent,
    RequestEvent,
    StepEvent,
    TaskEvent,
    TraceEvent,
    WorkEvent,
)
from profiling_middleware.tracing import drawing as drawing_module
from profiling_middleware.tracing.drawing import Drawing
from profiling_middleware.tracing.rows import MOST_ROWS
from profiling_middleware.tracing.stalls import Stall
from profiling_middleware.tracing.states import ThreadState

NOW = 10**12
TID = 4712
F = stack("f", "main")
PLACE = [("function", "shop.f"), ("file", "/srv/shop.py"), ("line", 1)]
WHERE = [*PLACE, ("stack", "shop.f (/srv/shop.py:1)\nshop.main (/srv/shop.py:2)")]
# A worker's own loop that waits for work.
IDLE = Stack((Frame("concurrent.futures.thread._worker", "/lib/thread.py", 80, 60),))


@pytest.fixture
def drawing() -> Drawing:
    return Drawing()


def drawn(drawing: Drawing, event: TraceEvent) -> list[Any]:
    return list(drawing.event(event))


def arguments(item: Slice | Instant) -> dict[str, Any]:
    """With those that are different each time."""
    described = [*item.arguments, *(item.measures if isinstance(item, Slice) else ())]
    assert len(dict(described)) == len(described)
    return dict(described)


# -- requests --------------------------------------------------------------------------------------------------------


def request(**changes: Any) -> RequestEvent:
    labels = Label("endpoint", "/orders/{id}"), Label("method", "GET")
    event = RequestEvent(3, 7, NOW, NOW + 5 * MS, NOW + 5 * MS + 10, labels, 200)
    return event._replace(**changes)


def test_a_request_is_drawn_in_its_row(drawing: Drawing) -> None:
    (item,) = drawn(drawing, request())
    assert item[:5] == (("request", 3), NOW, NOW + 5 * MS + 10, "GET /orders/{id}", "request")
    assert arguments(item) == {"route": "/orders/{id}", "status": 200, "method": "GET", "first_byte_us": 5_000}
    assert (len(item.flows), item.last_flows) == (1, ())


def test_what_is_not_known_of_a_request_is_left_out(drawing: Drawing) -> None:
    (item,) = drawn(drawing, request(labels=(), first_byte_ns=0, status=0))
    assert item.name == "<no route>"
    assert arguments(item) == {"route": "<no route>", "status": 0}


def test_a_body_that_takes_its_time_is_drawn_within(drawing: Drawing) -> None:
    first = NOW + 5 * MS
    (whole,) = drawn(drawing, request(ended_ns=first + MS - 1))
    _, rest = drawn(drawing, request(ended_ns=first + MS))
    assert rest == Slice(("request", 3), first, first + MS, "sends the rest", "response")
    assert whole.began_ns <= rest.began_ns


def test_a_request_that_goes_on_is_drawn_so(drawing: Drawing) -> None:
    (item,) = drawn(drawing, request(ended_ns=0))
    assert (item.began_ns, item.ended_ns, arguments(item)["first_byte_us"]) == (NOW, 0, 5_000)


# -- loops -----------------------------------------------------------------------------------------------------------


def step(**changes: Any) -> StepEvent:
    return StepEvent(TID, NOW, NOW + MS, "Shop.serve", "Task-1", 7, 5, (6, 8))._replace(**changes)


def test_a_step_is_drawn_on_its_loop(drawing: Drawing) -> None:
    (item,) = drawn(drawing, step())
    assert item[:5] == (("loop", TID), NOW, NOW + MS, "Shop.serve", "step")
    assert arguments(item) == {"task": "Task-1"}
    (callback,) = drawn(drawing, step(task="", request=0, woken_by=0, wakes=()))
    assert (arguments(callback), callback.flows, callback.last_flows) == ({}, (), ())


def test_arrows_of_requests_and_of_waking_do_not_mix(drawing: Drawing) -> None:
    """Of a request and all that is done for it; from what wakes to what was woken, where it ends."""
    seven = drawn(drawing, request(number=7))[0].flows
    wakes, woken = drawn(drawing, step(woken_by=0, wakes=(7,)))[0], drawn(drawing, step(request=0, woken_by=7))[0]
    assert wakes.flows[:1] == seven
    assert wakes.flows[1:] == woken.last_flows
    assert wakes.flows[1:] != seven
    work = drawn(drawing, WorkEvent(TID, NOW, NOW, NOW + MS, "work", 7))[0]
    task = drawn(drawing, TaskEvent(1, NOW, NOW + MS, "Task-1", "serve", 7))[0]
    assert work.flows == task.flows == seven
    numbers = [
        flow
        for number in (1, 2, 3, 2**31 - 1)
        for flow in (
            *drawn(drawing, request(number=number))[0].flows,
            *drawn(drawing, step(request=0, wakes=(number,)))[0].flows,
        )
    ]
    assert len(set(numbers)) == 8
    assert all(0 <= number < 2**32 for number in numbers)
    (many,) = drawn(drawing, request(number=2**40 + 1))
    assert all(flow < 2**32 for flow in many.flows)


def test_a_task_and_its_waits_are_drawn_in_its_row(drawing: Drawing) -> None:
    (task,) = drawn(drawing, TaskEvent(4, NOW, NOW + 9 * MS, "Task-1", "serve", 0))
    (waits,) = drawn(drawing, AwaitEvent(4, NOW + 1, NOW + MS, "sleep"))
    assert task[:5] == (("task", 4), NOW, NOW + 9 * MS, "serve", "task")
    assert (arguments(task), task.flows) == ({"task": "Task-1"}, ())
    assert waits == Slice(("task", 4), NOW + 1, NOW + MS, "waits: sleep", "await")


def test_a_stall_has_the_stack_that_did_it(drawing: Drawing) -> None:
    item = drawing.stall(Stall(step(), F))
    (plain,) = drawn(drawing, step())
    assert item[:5] == (("loop", TID), NOW, NOW + MS, "stall: Shop.serve", "stall")
    assert (item.flows, item.last_flows) == (plain.flows, plain.last_flows)
    assert arguments(item) == {"task": "Task-1", **dict(WHERE)}
    unseen = drawing.stall(Stall(step(), None))
    assert (unseen.name, arguments(unseen)) == ("stall: Shop.serve", {"task": "Task-1"})
    deep = drawing.stall(Stall(step(), stack(*(f"f{number}" for number in range(500)))))
    assert len(arguments(deep)["stack"].splitlines()) == 60
    assert arguments(deep)["stack"].startswith("shop.f0 (/srv/shop.py:1)\n")


# -- threads ---------------------------------------------------------------------------------------------------------


def test_work_is_drawn_in_its_thread(drawing: Drawing) -> None:
    (item,) = drawn(drawing, WorkEvent(TID, NOW - 3 * MS, NOW, NOW + MS, "resize", 0))
    assert item[:5] == (("thread", TID), NOW, NOW + MS, "resize", "executor")
    assert (arguments(item), item.flows) == ({"queued_us": 3_000}, ())


@pytest.mark.parametrize(("uncollectable", "more"), [(0, {}), (2, {"uncollectable": 2})])
def test_a_run_of_the_garbage_collector_is_drawn_in_its_thread(
    uncollectable: int, more: dict[str, int], drawing: Drawing
) -> None:
    (item,) = drawn(drawing, CollectionEvent(TID, NOW, NOW + MS, 2, 10, uncollectable))
    assert item[:5] == (("thread", TID), NOW, NOW + MS, "garbage collection", "gc")
    assert arguments(item) == {"generation": 2, "collected": 10, **more}


@pytest.mark.parametrize(
    ("state", "nanoseconds", "full", "drawn"),
    [
        ("runs", 1_000, True, True),
        ("runs", 999, True, False),
        ("runs", 15 * MS, False, True),
        ("runs", 15 * MS - 1, False, False),
        ("sleep", MS, False, True),
        ("sleep", MS - 1, False, False),
        ("sleep", MS, True, True),
        ("sleep", MS - 1, True, False),
        ("idle", MS, True, True),
        ("idle", MS, False, False),
    ],
)
def test_states_that_are_long_enough_are_drawn(
    state: str, nanoseconds: int, full: bool, drawn: bool, drawing: Drawing
) -> None:
    """Less than a microsecond would reach into the state that follows."""
    item = drawing.state(ThreadState(TID, NOW, NOW + nanoseconds, state, None), full=full)
    assert item == (Slice(("state", TID), NOW, NOW + nanoseconds, state, "thread") if drawn else None)


def test_a_wait_is_drawn_with_its_place() -> None:
    drawing = Drawing()
    waits, idle = (
        drawing.state(ThreadState(TID, NOW, NOW + MS, name, F.frames[0]), full=True) for name in ("network", "idle")
    )
    assert waits is not None
    assert list(waits.arguments) == PLACE
    assert idle is not None
    assert idle.arguments == ()


def test_samples_of_work_are_drawn_as_stacks() -> None:
    """Not waits, not those of threads that nobody has seen, and not those without a stack."""
    samples = [
        sample(NOW, F, cpu=MS),
        sample(NOW + 1, F, wall=MS),
        sample(NOW + 2, F, cpu=MS, thread=Thread("ended threads", 0)),
        sample(NOW + 3, Stack(()), cpu=MS),
        sample(NOW + 4, F, cpu=1, wall=MS),
    ]
    assert list(Drawing.samples(samples)) == [StackSample(TID, NOW, F), StackSample(TID, NOW + 4, F)]


# -- locks -----------------------------------------------------------------------------------------------------------


def test_a_threads_wait_for_a_lock_has_its_place_and_who_released_it(drawing: Drawing) -> None:
    item = drawing.lock_wait(wait(NOW, 5 * MS, F, holder=Thread("holder", 1)))
    assert item is not None
    assert item[:5] == (("thread", TID), NOW - 5 * MS, NOW, "waits for a lock", "lock")
    assert arguments(item) == {**dict(WHERE), "released by": "holder"}
    item = drawing.lock_wait(wait(NOW, 5 * MS, F))
    assert item is not None
    assert arguments(item) == dict(WHERE)


def test_waits_for_work_and_of_unknown_threads_are_not_drawn(drawing: Drawing) -> None:
    assert drawing.lock_wait(wait(NOW, 5 * MS, IDLE)) is None
    assert drawing.lock_wait(wait(NOW, 5 * MS, F, thread=Thread("ended threads", 0))) is None
    server = Stack((Frame("uvicorn.server.Server.main_loop", "/lib/server.py", 80, 60),))
    assert drawing.task_lock_wait(wait(NOW, 5 * MS, server, reason=Reason.AWAIT)) is None


def test_waits_of_tasks_that_overlap_have_rows_of_their_own(drawing: Drawing) -> None:
    """They are told as they end."""
    waits = [(0, 5), (3, 6), (1, 7), (5, 8), (6, 9), (0, 10), (9, 11)]
    drawn = [drawing.task_lock_wait(wait(NOW + ended, ended - began, F)) for began, ended in waits]
    items = [item for item in drawn if item is not None]
    assert [item.track for item in items] == [("lock", row) for row in (0, 1, 2, 0, 1, 3, 2)]
    assert [(item.began_ns - NOW, item.ended_ns - NOW) for item in items] == waits
    assert {(item.name, item.category) for item in items} == {("waits for a lock", "lock")}
    assert arguments(items[0]) == dict(WHERE)
    # A sum of several has a part of a nanosecond.
    item = drawing.task_lock_wait(wait(NOW + 20, 4.6, F, thread=WORKER))
    assert item is not None
    assert item.began_ns == NOW + 15


def test_rows_of_waits_are_bounded_and_begin_anew(drawing: Drawing) -> None:
    """10,000 tasks may wait for one event at once."""
    waits = [wait(NOW + number, 5 * MS, F) for number in range(MOST_ROWS + 3)]
    drawn = [drawing.task_lock_wait(one) for one in waits]
    assert [item is None for item in drawn] == [False] * MOST_ROWS + [True] * 3
    assert drawing.dropped == 3
    assert drawing.task_lock_wait(wait(NOW + 9 * MS, MS, F)) is not None
    drawing.forget()
    assert drawing._lock_rows == []
    item = drawing.task_lock_wait(wait(NOW, MS, F))
    assert item is not None
    assert (item.track, drawing.dropped) == (("lock", 0), 3)


def test_a_stack_is_written_down_once(drawing: Drawing, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has some kilobytes, and thousands may wait there."""
    monkeypatch.setattr(drawing_module, "_MOST_PLACES", 3)

    def where(at: Stack) -> Any:
        item = drawing.lock_wait(wait(NOW, 5 * MS, at))
        assert item is not None
        return item.arguments

    stacks = [stack(f"f{number}", "main") for number in range(10)]
    for at in stacks:
        assert where(at) is where(at)
        assert len(drawing._places) <= 3
    assert where(stacks[0])[0] == ("function", "shop.f0")
    drawing.forget()
    assert drawing._places == {}


# -- the rest --------------------------------------------------------------------------------------------------------


def test_a_counter_is_drawn_as_one(drawing: Drawing) -> None:
    assert drawn(drawing, CounterEvent("cpu", NOW, 12.5)) == [Count(("counter", "cpu"), NOW, 12.5)]


def test_a_trace_says_what_it_is() -> None:
    about = [("service", "shop")]
    assert Drawing.about(NOW, about) == Instant(("process",), NOW, "profiling_middleware trace", "about", about)
