"""From samples to what threads did when: in order, and no time twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracing_kit import MS, WORKER, sample, stack

from profiling_middleware.model import Frame, Reason, Sample, Stack, Thread
from profiling_middleware.tracing import states as states_module
from profiling_middleware.tracing.states import ThreadStates

F, G, H = stack("f"), stack("g"), stack("h", "f")
# A worker's own loop that waits for work.
IDLE = Stack((Frame("concurrent.futures.thread._worker", "/lib/thread.py", 80, 60),))
OTHER = Thread("other", 4713)
NOW = 10**12

Told = tuple[float, float, str, Frame | None]


def told(samples: Iterable[Sample], states: ThreadStates | None = None) -> list[Told]:
    """Beginning and end in milliseconds after NOW, state, where."""
    of = (states or ThreadStates()).of(samples)
    return [((state.began_ns - NOW) / MS, (state.ended_ns - NOW) / MS, state.state, state.frame) for state in of]


def at(milliseconds: float, stack: Stack = F, *, cpu: float = 0, wall: float = 0, **more: object) -> Sample:
    return sample(NOW + int(milliseconds * MS), stack, cpu=int(cpu * MS), wall=int(wall * MS), **more)


def test_a_sample_of_work_is_told_as_running() -> None:
    assert told([at(10, cpu=10)]) == [(0, 10, "runs", None)]
    # Where only CPU time is put in its place.
    assert told([Sample(NOW + 10 * MS, WORKER, F, 10 * MS, 0)]) == [(0, 10, "runs", None)]


@pytest.mark.parametrize(
    ("reason", "where", "name"),
    [
        (Reason.NETWORK, F, "network"),
        (Reason.SLEEP, F, "sleep"),
        (Reason.LOCK, F, "lock"),
        (Reason.GIL, F, "gil"),
        (Reason.MEASURED, F, "lock"),
        (Reason.LOCK, IDLE, "idle"),
        (Reason.OTHER, F, "other"),
    ],
)
def test_a_wait_has_its_kind_and_its_place(reason: Reason, where: Stack, name: str) -> None:
    assert told([at(10, where, wall=10, reason=reason)]) == [(0, 10, name, where.frames[0])]


def test_what_nobody_knows_of_a_wait_is_not_told() -> None:
    assert told([at(10, wall=10, reason=Reason.UNKNOWN)]) == [(0, 10, "waits", None)]


def test_of_a_wait_and_the_work_after_it_the_work_came_last() -> None:
    network = at(10, wall=10, cpu=4, reason=Reason.NETWORK)
    assert told([network]) == [(0, 6, "network", F.frames[0]), (6, 10, "runs", None)]
    # Why, or where, it waited is not known.
    for more in ({}, {"reason": Reason.SLEEP, "moving": True}):
        assert told([at(10, wall=10, cpu=4, **more)]) == [(0, 6, "waits", None), (6, 10, "runs", None)]


def test_pauses_too_short_to_be_shown_are_part_of_what_is_around_them() -> None:
    """Of a tenth of a millisecond, in a sample or between two."""
    assert told([at(10, cpu=9.95, wall=10)]) == [(0.05, 10, "runs", None)]
    assert told([at(10, cpu=10), at(20.05, cpu=10)]) == [(0, 20.05, "runs", None)]
    assert told([at(10, cpu=10), at(20.15, cpu=10)]) == [(0, 10, "runs", None), (10.15, 20.15, "runs", None)]


def test_states_that_follow_each_other_are_one() -> None:
    """Where they are of the same kind, and waits at the same place."""
    samples = [
        at(10, cpu=10),
        at(20, G, cpu=10),
        at(30, wall=10, reason=Reason.SLEEP),
        at(40, wall=10, reason=Reason.SLEEP),
        at(50, H, wall=10, reason=Reason.SLEEP),
        at(60, H, wall=10, reason=Reason.NETWORK),
        at(70, cpu=10),
    ]
    assert told(samples) == [
        (0, 20, "runs", None),
        (20, 40, "sleep", F.frames[0]),
        (40, 50, "sleep", H.frames[0]),
        (50, 60, "network", H.frames[0]),
        (60, 70, "runs", None),
    ]


def test_no_time_is_told_twice() -> None:
    """Samples overlap, and some come after later ones; also from one time to the next."""
    states = ThreadStates()
    first = [at(10, cpu=10), at(15, wall=10, reason=Reason.SLEEP), at(12, cpu=12)]
    assert told(first, states) == [(0, 10, "runs", None), (10, 15, "sleep", F.frames[0])]
    assert told([at(14, cpu=4), at(18, cpu=10)], states) == [(15, 18, "runs", None)]
    assert told([at(18, cpu=1)], states) == []


def test_threads_do_not_mix() -> None:
    states = ThreadStates()
    samples = [at(10, cpu=10), at(8, cpu=8, thread=OTHER), at(20, cpu=10), at(9, cpu=1, thread=OTHER)]
    found = sorted((state.tid, state.began_ns - NOW, state.ended_ns - NOW) for state in states.of(samples))
    assert found == [(4712, 0, 20 * MS), (4713, 0, 9 * MS)]


@pytest.mark.parametrize("thread", [Thread("profiling-timer", 5), Thread("ended threads", 0)])
def test_own_threads_and_those_without_a_number_are_left_out(thread: Thread) -> None:
    assert told([at(10, cpu=10, thread=thread), at(20, wall=10, thread=thread)]) == []


def test_a_bounded_number_of_threads_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states_module, "_MOST_THREADS", 3)
    states = ThreadStates()
    for number in range(20):
        assert len(told([at(10, cpu=10, thread=Thread("w", number + 1))], states)) == 1
        assert len(states._ended) <= 4


REASONS = st.sampled_from([Reason.UNKNOWN, Reason.SLEEP, Reason.NETWORK])
SAMPLES = st.lists(
    st.builds(
        lambda ended, cpu, wall, where, thread, reason, moving: at(
            ended, where, cpu=cpu, wall=wall, thread=thread, reason=reason, moving=moving
        ),
        st.integers(0, 300),
        st.sampled_from([0, 0, 0.01, 1, 5]),
        st.sampled_from([0, 0.05, 1, 7, 20]),
        st.sampled_from([F, G, IDLE]),
        st.sampled_from([WORKER, OTHER]),
        REASONS,
        st.booleans(),
    ),
    max_size=60,
)


@given(st.lists(SAMPLES, max_size=3))
def test_whatever_is_seen_states_are_in_order_and_within_what_was_seen(batches: list[list[Sample]]) -> None:
    states = ThreadStates()
    found = [state for samples in batches for state in states.of(samples)]
    for tid in (WORKER.native_id, OTHER.native_id):
        of_thread = [state for state in found if state.tid == tid]
        assert all(state.began_ns < state.ended_ns for state in of_thread)
        assert all(one.ended_ns <= other.began_ns for one, other in itertools.pairwise(of_thread))
        seen = [sample for samples in batches for sample in samples if sample.thread.native_id == tid]
        covered = sum(state.ended_ns - state.began_ns for state in of_thread)
        assert covered <= sum(max(sample.wall_ns, sample.cpu_ns) + 100_000 for sample in seen)


@given(
    st.lists(st.tuples(st.sampled_from([0.2, 1, 5, 30]), st.sampled_from(["runs", "sleep", "network"])), max_size=40)
)
def test_what_is_seen_without_gaps_is_told_whole(stays: list[tuple[float, str]]) -> None:
    """Each time has its state: the same as was put in, however it is cut in samples."""
    reasons = {"sleep": Reason.SLEEP, "network": Reason.NETWORK}
    now, samples, expected = 0.0, [], []
    for duration, state in stays:
        now = round(now + duration, 1)
        work = {"cpu": duration} if state == "runs" else {"wall": duration, "reason": reasons[state]}
        samples.append(at(now, **work))
        frame = None if state == "runs" else F.frames[0]
        if expected and expected[-1][2:] == (state, frame):
            expected[-1] = (expected[-1][0], now, state, frame)
        else:
            expected.append((round(now - duration, 1), now, state, frame))
    found = told(samples)
    assert [row[2:] for row in found] == [row[2:] for row in expected]
    assert [row[:2] for row in found] == [pytest.approx(row[:2], abs=1e-5) for row in expected]


def test_who_has_nothing_to_do_is_left_out_and_nothing_is_told_of_that_time() -> None:
    samples = [
        at(10, cpu=10),
        at(50, IDLE, wall=40, reason=Reason.LOCK),
        # Seen late: what it claims of the time before is known to be idle.
        at(60, cpu=20, wall=20),
        at(90, wall=30, reason=Reason.SLEEP),
    ]
    of = [(state.began_ns, state.ended_ns, state.state) for state in ThreadStates().of(samples, idle=False)]
    told_ms = [((began - NOW) / MS, (ended - NOW) / MS, name) for began, ended, name in of]
    assert told_ms == [(0, 10, "runs"), (50, 60, "runs"), (60, 90, "sleep")]
    assert [state for *_, state, _ in told(samples)] == ["runs", "idle", "runs", "sleep"]
