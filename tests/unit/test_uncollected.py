"""What is kept for as long as a profile is collected does not make the garbage collector's work longer."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from profiling_middleware.captures.collector import Collector
from profiling_middleware.captures.sampled import StackSums
from profiling_middleware.encoders.perfetto import PerfettoEncoder
from profiling_middleware.encoders.trace_items import Slice, StackSample, TraceItem
from profiling_middleware.model import Contention, Frame, Label, Reason, Sample, Stack, Thread
from profiling_middleware.sampling.accounts import Accounts
from profiling_middleware.sampling.engine import EngineReport
from profiling_middleware.stacks import StackTable
from profiling_middleware.uncollected import make_untracker

_EXTENSION = "profiling_middleware.sampling._native"
THREAD = Thread("serve", 5)
MANY = 300


@pytest.fixture
def untrack(need_native: Callable[[], None]) -> Callable[[Any], Any]:
    need_native()
    import profiling_middleware.sampling._native  # noqa: F401 - as an engine does

    return make_untracker()


@pytest.fixture
def quiet() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def frame(number: int) -> Frame:
    return Frame(f"app.f{number}", "a.py", number, 1)


def fill_stack_table() -> object:
    table = StackTable()
    for number in range(MANY):
        table.intern((frame(number), frame(-1)))
    return table


def fill_accounts() -> object:
    accounts = Accounts()
    frames = [(f"f{number}", "a.py", number, 1) for number in range(MANY)]
    stacks = [(number, 0) for number in range(MANY)]
    accounts.learn_stacks(stacks, frames, begins_anew=False)
    return accounts


def stacks() -> Iterator[Stack]:
    """As the engine makes them."""
    untrack = make_untracker()
    for number in range(MANY):
        yield untrack(Stack(untrack((frame(number),))))


def fill_sums() -> object:
    sums = StackSums(Sample._fields.index("cpu_ns"), None)
    for stack in stacks():
        sums.receive([Sample(0, THREAD, stack, 5, 5)])
    return sums


def fill_collector() -> object:
    collector, waiter = Collector(20.0, EngineReport()), Stack((frame(-1),))
    for stack in stacks():
        collector.receive([Sample(0, THREAD, stack, 0, 5, reason=Reason.SLEEP)])
        collector.receive_contentions([Contention(THREAD, stack, None, 1, 5), Contention(THREAD, stack, waiter, 1, 5)])
    return collector


def fill_trace_encoder() -> object:
    encoder = PerfettoEncoder(7, "service")
    items: list[TraceItem] = [StackSample(5, 1_000, stack) for stack in stacks()]
    for number in range(MANY):
        track = ("request", number)
        items.append(
            Slice(track, 1_000, 9_000, f"GET /{number}", "request", (("route", f"/{number}"), ("status", 200)))
        )
    encoder.chunk(items, lambda: None)
    return encoder


def tracked_by(fill: Callable[[], object]) -> int:
    """How many objects the collector has to go through because of what is kept."""
    before = len(gc.get_objects())
    kept = fill()
    more = len(gc.get_objects()) - before
    del kept
    return more


FILLED = [fill_stack_table, fill_accounts, fill_sums, fill_collector, fill_trace_encoder]


@pytest.mark.usefixtures("untrack", "quiet")
@pytest.mark.parametrize("fill", FILLED)
def test_the_more_is_kept_the_collector_has_no_more_to_do(fill: Callable[[], object]) -> None:
    assert tracked_by(fill) < 60


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("fill", FILLED)
def test_without_the_extension_it_has(fill: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """So the other test counts what it says."""
    monkeypatch.delitem(sys.modules, _EXTENSION, raising=False)
    assert tracked_by(fill) >= MANY


def test_what_is_left_out_is_the_same_object_and_goes_when_nobody_holds_it(untrack: Callable[[Any], Any]) -> None:
    class Held:
        pass

    held = Held()
    gone, key = weakref.ref(held), (held, (Label("a", "b"), frame(1)), [held])
    assert untrack(key) is key
    # Tuples in it, and nothing else.
    assert [gc.is_tracked(one) for one in (key, key[1], *key[1], key[2], held)] == [False] * 4 + [True] * 2
    assert untrack(key) is key
    del key, held
    assert gone() is None


@pytest.mark.parametrize("other", [None, 1, "text", (), [], 1.5])
def test_what_is_never_collected_may_be_given_as_well(untrack: Callable[[Any], Any], other: Any) -> None:
    assert untrack(other) is other


def test_objects_that_are_left_out_are_made_and_freed_as_others(untrack: Callable[[Any], Any]) -> None:
    before = sys.getrefcount(None)
    for number in range(20_000):
        untrack((None, frame(number), Label("key", None), untrack([0.0, None])))  # type: ignore[arg-type]
    gc.collect()
    assert abs(sys.getrefcount(None) - before) < 100
