"""Stalls, and what they were doing."""

from __future__ import annotations

import pytest
from tracing_kit import MS, SECOND, WORKER, sample, stack

from profiling_middleware.model import Stack, Thread
from profiling_middleware.trace_events import StepEvent
from profiling_middleware.tracing import stalls as stalls_module
from profiling_middleware.tracing.stalls import STALL_NS, Stall, Stalls

F, G, H = stack("f"), stack("g"), stack("h", "f")
NOW = 10**12
TID = WORKER.native_id
STEP = StepEvent(7, NOW, NOW + 200 * MS, "main", "Task-1", 0, 0, ())


def where(stalls: list[Stall]) -> list[Stack | None]:
    return [stall.stack for stall in stalls]


def test_it_was_where_it_spent_most_of_its_time() -> None:
    """Not where it was most often, and not what came before and after."""
    stalls = Stalls()
    stalls.add(STEP, TID)
    stalls.remember(
        [
            # Mostly before, and mostly after: 10 ms of each.
            sample(NOW + 10 * MS, H, cpu=900 * MS),
            *[sample(NOW + (11 + number) * MS, F, cpu=MS) for number in range(50)],
            sample(NOW + 150 * MS, G, wall=70 * MS),
            sample(NOW + 990 * MS, H, cpu=800 * MS),
            # Another thread's.
            sample(NOW + 200 * MS, H, cpu=200 * MS, thread=Thread("other", TID + 1)),
        ]
    )
    assert stalls.take(NOW + SECOND) == [Stall(STEP, TID, G)]


def test_the_times_of_a_stack_are_added_up() -> None:
    stalls = Stalls()
    stalls.add(STEP, TID)
    stalls.remember(sample(NOW + (number + 1) * 10 * MS, F if number % 3 else G, cpu=10 * MS) for number in range(20))
    assert where(stalls.take(NOW + SECOND)) == [F]


def test_a_wait_that_is_found_later_says_nothing_of_where_it_was_before() -> None:
    """It is where the thread has gone on to meanwhile: the loop waits there for the next event."""
    stalls = Stalls()
    stalls.add(STEP, TID)
    stalls.add(STEP._replace(began_ns=NOW + 300 * MS, ended_ns=NOW + 500 * MS), TID)
    stalls.remember(
        [
            sample(NOW + 50 * MS, F, wall=10 * MS),
            sample(NOW + 250 * MS, H, cpu=5 * MS, wall=200 * MS),
            sample(NOW + 900 * MS, H, wall=650 * MS),
        ]
    )
    assert where(stalls.take(NOW + SECOND)) == [F, None]


def test_it_is_waited_for_until_its_end_has_been_seen() -> None:
    """Samples come late; a stall is told once."""
    stalls = Stalls()
    stalls.add(STEP, TID)
    stalls.remember([sample(NOW + 100 * MS, F, cpu=100 * MS)])
    assert stalls.take(NOW + SECOND) == []
    stalls.remember([sample(NOW + 300 * MS, G, cpu=180 * MS, thread=Thread("other", TID + 1))])
    assert stalls.take(NOW + 2 * SECOND) == []
    stalls.remember([sample(NOW + 200 * MS, G, cpu=99 * MS)])
    assert where(stalls.take(NOW + 2 * SECOND)) == [F]
    assert stalls.take(NOW + 9 * SECOND) == []


@pytest.mark.parametrize("seen", [True, False])
def test_patience_ends(seen: bool) -> None:
    stalls = Stalls()
    stalls.add(STEP, TID)
    if seen:
        stalls.remember([sample(NOW + 100 * MS, F, cpu=100 * MS)])
    assert stalls.take(STEP.ended_ns + 3 * SECOND) == []
    assert where(stalls.take(STEP.ended_ns + 3 * SECOND + 1)) == [F if seen else None]


@pytest.mark.parametrize("seen", [True, False])
def test_the_final_time_none_is_waited_for(seen: bool) -> None:
    stalls = Stalls()
    stalls.add(STEP, TID)
    if seen:
        stalls.remember([sample(NOW + 100 * MS, F, cpu=100 * MS)])
    assert where(stalls.take(NOW + 201 * MS, final=True)) == [F if seen else None]
    assert stalls.take(NOW + 201 * MS, final=True) == []


def test_those_that_are_explained_are_told_and_the_others_wait() -> None:
    stalls = Stalls()
    other = STEP._replace(began_ns=NOW + 500 * MS, ended_ns=NOW + 700 * MS)
    elsewhere = STEP._replace(ident=8)
    for step, tid in ((STEP, TID), (other, TID), (elsewhere, TID + 1)):
        stalls.add(step, tid)
    stalls.remember([sample(NOW + 250 * MS, F, cpu=250 * MS)])
    assert stalls.take(NOW + SECOND) == [Stall(STEP, TID, F)]
    stalls.remember([sample(NOW + 700 * MS, G, cpu=250 * MS)])
    assert stalls.take(NOW + SECOND) == [Stall(other, TID, G)]
    assert stalls.take(NOW + SECOND, final=True) == [Stall(elsewhere, TID + 1, None)]


def test_what_has_been_seen_before_it_was_told_of_counts_too() -> None:
    stalls = Stalls()
    stalls.remember([sample(NOW + 200 * MS, F, cpu=200 * MS)])
    stalls.add(STEP, TID)
    assert where(stalls.take(NOW + SECOND)) == [F]


def test_a_bounded_number_of_samples_is_remembered() -> None:
    stalls = Stalls()
    most = stalls_module._REMEMBERED
    stalls.remember(sample(NOW + 200 * MS, F if number else G, cpu=200 * MS) for number in range(most + 1))
    assert len(stalls._samples) == most
    assert G not in {sample.stack for sample in stalls._samples}


def test_a_stall_is_a_tenth_of_a_second() -> None:
    assert STALL_NS == 100 * MS
