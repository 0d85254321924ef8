"""Stalls, and what they were doing."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from tracing_kit import MS, SECOND, WORKER, sample, stack

from profiling_middleware.model import Sample, Stack, Thread
from profiling_middleware.trace_events import StepEvent
from profiling_middleware.tracing import stalls as stalls_module
from profiling_middleware.tracing.seen import SeenSamples
from profiling_middleware.tracing.stalls import STALL_NS, Stall, Stalls

F, G, H = stack("f"), stack("g"), stack("h", "f")
NOW = 10**12
TID = WORKER.native_id
STEP = StepEvent(TID, NOW, NOW + 200 * MS, "main", "Task-1", 0, 0, ())


def remember(stalls: Stalls, samples: Iterable[Sample]) -> None:
    stalls.remember(SeenSamples(samples))


def where(stalls: list[Stall]) -> list[Stack | None]:
    return [stall.stack for stall in stalls]


def test_it_was_where_it_spent_most_of_its_time() -> None:
    """Not where it was most often, and not what came before and after."""
    stalls = Stalls()
    stalls.add(STEP)
    remember(
        stalls,
        [
            # Mostly before: 10 ms of it.
            sample(NOW + 10 * MS, H, cpu=900 * MS),
            *[sample(NOW + (11 + number) * MS, F, cpu=MS) for number in range(50)],
            sample(NOW + 150 * MS, G, wall=70 * MS),
            sample(NOW + 201 * MS, H, cpu=200 * MS),
            # Another thread's.
            sample(NOW + 200 * MS, H, cpu=200 * MS, thread=Thread("other", TID + 1)),
        ],
    )
    assert stalls.take(NOW + SECOND) == [Stall(STEP, G)]


def test_the_times_of_a_stack_are_added_up() -> None:
    stalls = Stalls()
    stalls.add(STEP)
    remember(
        stalls, (sample(NOW + (number + 1) * 10 * MS, F if number % 3 else G, cpu=10 * MS) for number in range(20))
    )
    assert where(stalls.take(NOW + SECOND)) == [F]


def test_what_is_found_later_says_nothing_of_where_it_was_before() -> None:
    """It is where the thread has gone on to meanwhile: the loop's own work, and its wait for the next event."""
    stalls = Stalls()
    stalls.add(STEP)
    stalls.add(STEP._replace(began_ns=NOW + 300 * MS, ended_ns=NOW + 500 * MS))
    remember(
        stalls,
        [
            sample(NOW + 50 * MS, F, wall=30 * MS),
            sample(NOW + 201 * MS, H, cpu=100 * MS),
            sample(NOW + 250 * MS, H, cpu=5 * MS, wall=200 * MS),
            sample(NOW + 900 * MS, H, wall=650 * MS),
        ],
    )
    assert where(stalls.take(NOW + SECOND)) == [F, None]


def test_who_is_found_at_work_has_waited_elsewhere() -> None:
    """Its sample stands where it has worked last: in the loop itself, for who has only slept in the step."""
    stalls = Stalls()
    stalls.add(STEP)
    remember(
        stalls,
        [
            sample(NOW + 50 * MS, F, wall=30 * MS),
            sample(NOW + 199 * MS, H, cpu=5 * MS, wall=149 * MS)._replace(moving=True),
        ],
    )
    assert where(stalls.take(NOW + SECOND, final=True)) == [F]


def test_it_is_waited_for_until_its_end_has_been_seen() -> None:
    """Samples come late; a stall is told once."""
    stalls = Stalls()
    stalls.add(STEP)
    remember(stalls, [sample(NOW + 100 * MS, F, cpu=100 * MS)])
    assert stalls.take(NOW + SECOND) == []
    remember(stalls, [sample(NOW + 300 * MS, G, cpu=180 * MS, thread=Thread("other", TID + 1))])
    assert stalls.take(NOW + 2 * SECOND) == []
    remember(stalls, [sample(NOW + 200 * MS, G, cpu=99 * MS)])
    assert where(stalls.take(NOW + 2 * SECOND)) == [F]
    assert stalls.take(NOW + 9 * SECOND) == []


@pytest.mark.parametrize(("milliseconds", "told"), [(19, None), (20, F)])
def test_it_is_told_where_it_was_when_a_tenth_has_been_seen(milliseconds: int, told: Stack | None) -> None:
    """A sample of what a step did before it waited where nobody looked, stands for as much work as others do."""
    stalls = Stalls()
    stalls.add(STEP)
    remember(stalls, [sample(NOW + milliseconds * MS, F, cpu=100 * MS)])
    assert where(stalls.take(NOW + SECOND, final=True)) == [told]


@pytest.mark.parametrize("seen", [True, False])
def test_patience_ends(seen: bool) -> None:
    stalls = Stalls()
    stalls.add(STEP)
    if seen:
        remember(stalls, [sample(NOW + 100 * MS, F, cpu=100 * MS)])
    assert stalls.take(STEP.ended_ns + 3 * SECOND) == []
    assert where(stalls.take(STEP.ended_ns + 3 * SECOND + 1)) == [F if seen else None]


@pytest.mark.parametrize("seen", [True, False])
def test_the_final_time_none_is_waited_for(seen: bool) -> None:
    stalls = Stalls()
    stalls.add(STEP)
    if seen:
        remember(stalls, [sample(NOW + 100 * MS, F, cpu=100 * MS)])
    assert where(stalls.take(NOW + 201 * MS, final=True)) == [F if seen else None]
    assert stalls.take(NOW + 201 * MS, final=True) == []


def test_those_that_are_explained_are_told_and_the_others_wait() -> None:
    stalls = Stalls()
    other = STEP._replace(began_ns=NOW + 500 * MS, ended_ns=NOW + 700 * MS)
    elsewhere = STEP._replace(tid=TID + 1)
    for step in (STEP, other, elsewhere):
        stalls.add(step)
    remember(stalls, [sample(NOW + 200 * MS, F, cpu=200 * MS)])
    assert stalls.take(NOW + SECOND) == [Stall(STEP, F)]
    remember(stalls, [sample(NOW + 700 * MS, G, cpu=250 * MS)])
    assert stalls.take(NOW + SECOND) == [Stall(other, G)]
    assert stalls.take(NOW + SECOND, final=True) == [Stall(elsewhere, None)]


def test_what_has_been_seen_before_it_was_told_of_counts_too() -> None:
    stalls = Stalls()
    remember(stalls, [sample(NOW + 200 * MS, F, cpu=200 * MS)])
    stalls.add(STEP)
    assert where(stalls.take(NOW + SECOND)) == [F]


def test_a_bounded_number_of_samples_is_remembered() -> None:
    """The newest ones, and no object of each."""
    most = stalls_module._REMEMBERED
    stalls = Stalls()
    stalls.add(STEP)
    remember(stalls, (sample(NOW + 200 * MS, F if number else G, cpu=MS) for number in range(2 * most - 1)))
    assert len(stalls._seen._stacks) == 2 * most - 1
    remember(stalls, [sample(NOW + 200 * MS, G, cpu=MS) for _ in range(most // 2)])
    assert stalls._seen._stacks == [F] * (most - most // 2) + [G] * (most // 2)
    seen = stalls._seen
    numbers = seen._tids, seen._times, seen._cpu, seen._wall, seen._moving
    assert [len(kept) for kept in numbers] == [most] * len(numbers)
    assert where(stalls.take(NOW + SECOND)) == [F]


def test_forgotten_samples_explain_nothing() -> None:
    stalls = Stalls()
    remember(stalls, [sample(NOW + 200 * MS, F, cpu=200 * MS)])
    stalls.forget()
    stalls.add(STEP)
    assert where(stalls.take(NOW + SECOND, final=True)) == [None]


def test_a_stall_is_a_tenth_of_a_second() -> None:
    assert STALL_NS == 100 * MS
