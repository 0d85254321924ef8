"""What is kept of what the engine sees: a bounded number of each kind."""

from __future__ import annotations

from tracing_kit import MS, sample, stack, wait

from profiling_middleware.model import Contention, Sample
from profiling_middleware.tracing import seen as seen_module
from profiling_middleware.tracing.seen import LOCK_WAIT_NS, SampleFields, SeenSamples, SeenThreads, SeenWaits

F = stack("f")
MOST = seen_module._MOST


def told(seen: SeenThreads) -> tuple[list[SampleFields], list[Contention], list[Contention]]:
    samples, lock_waits, task_lock_waits = seen.take()
    return list(samples), list(lock_waits), list(task_lock_waits)


def test_all_kinds_are_kept_apart_in_their_order_and_taken_once() -> None:
    seen = SeenThreads()
    samples = [sample(number, F, cpu=1) for number in range(4)]
    waits = [wait(number, 5 * MS, F) for number in range(1, 4)]
    task_waits = [wait(number, 7 * MS, F) for number in range(1, 3)]
    seen.receive(samples[:2])
    seen.receive(samples[2:])
    seen.receive_lock_waits(waits)
    seen.receive_contentions(task_waits)
    assert told(seen) == (samples, waits, task_waits)
    assert told(seen) == ([], [], [])
    assert seen.dropped == 0


def test_what_was_taken_is_not_changed_by_what_comes() -> None:
    seen = SeenThreads()
    taken = seen.take()
    seen.receive([sample(1, F, cpu=1)])
    assert len(taken.samples) == 0


def test_of_contentions_single_waits_with_their_moment_are_kept() -> None:
    """Sums, releases and short waits are for others."""
    seen = SeenThreads()
    long = wait(100, LOCK_WAIT_NS, F)
    others = [
        wait(0, 5 * LOCK_WAIT_NS, F),
        Contention(long.thread, F, F, 1.0, 5 * LOCK_WAIT_NS, time_ns=100),
        wait(100, LOCK_WAIT_NS - 1, F),
    ]
    seen.receive_contentions([others[0], long, *others[1:]])
    assert list(seen.take().task_lock_waits) == [long]
    assert seen.dropped == 0


def test_what_finds_no_room_is_counted_and_taking_makes_room() -> None:
    seen = SeenThreads()
    samples = [sample(number, F, cpu=1) for number in range(MOST - 1)]
    seen.receive(samples)
    late = [sample(MOST + number, F, cpu=1) for number in range(5)]
    seen.receive(late)
    seen.receive(late)
    seen.receive_lock_waits([wait(number, 5 * MS, F) for number in range(1, MOST + 4)])
    seen.receive_contentions([wait(number, 5 * MS, F) for number in range(1, MOST + 3)])
    assert seen.dropped == 4 + 5 + 3 + 2
    taken = seen.take()
    assert [len(kept) for kept in taken] == [MOST] * 3
    assert list(taken.samples) == [*samples, late[0]]
    seen.receive(late)
    assert (list(seen.take().samples), seen.dropped) == (late, 14)


def test_it_asks_for_all_there_is() -> None:
    seen = SeenThreads()
    assert (seen.hears_work, seen.wait_moments_ns) == (True, LOCK_WAIT_NS)
    assert seen.wait_looks > 0


def test_the_fields_of_waits_are_kept_and_no_wait() -> None:
    waits = [wait(number, 5 * MS, F) for number in range(1, 4)]
    seen = SeenWaits(waits)
    assert (len(seen), list(seen)) == (3, waits)
    assert all(isinstance(one, Contention) for one in seen)
    assert not any(isinstance(slot, Contention) for slot in seen._slots)


def test_the_fields_of_samples_are_kept_and_no_sample() -> None:
    samples = [sample(number, F, cpu=number, wall=2 * number) for number in range(3)]
    seen = SeenSamples(samples[:1])
    seen.extend(samples[1:])
    assert (len(seen), list(seen)) == (3, samples)
    assert (seen.column("time_ns"), seen.column("stack"), seen.column("wall_ns")) == ([0, 1, 2], [F] * 3, [0, 2, 4])
    assert not any(isinstance(slot, Sample) for slot in seen._slots)
