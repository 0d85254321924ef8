"""What sampled captures have in common, over an engine that says what the tests want."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling_middleware.captures import CAPTURES
from profiling_middleware.captures.sampled import StackSums
from profiling_middleware.captures.sources import Sources
from profiling_middleware.model import CaptureInfo, Frame, Label, Profile, Sample, Stack, Thread, ValueType
from profiling_middleware.sampling.engine import EngineReport, Listener

MakeInfo = Callable[..., CaptureInfo]

CPU, WALL = Sample._fields.index("cpu_ns"), Sample._fields.index("wall_ns")
MAIN, WORKER = Thread("MainThread", 11), Thread("worker", 12)
F, G = Stack((Frame("f", "a.py", 1, 1),)), Stack((Frame("g", "a.py", 2, 2),))
OTHER = Frame("<other stacks>", "", 0, 0)


def sample(thread: Thread = MAIN, stack: Stack = F, cpu: int = 0, wall: int = 0) -> Sample:
    return Sample(0, thread, stack, cpu, wall)


class ScriptedEngine:
    """Hands out what the test puts in; nothing is measured."""

    name = "scripted"
    rate = 100
    rate_used = 80.0
    limits = ("this engine makes things up",)

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.now = EngineReport()

    def attach(self, listener: Listener) -> None:
        self.listeners.append(listener)

    def detach(self, listener: Listener) -> None:
        self.listeners.remove(listener)

    def look(self) -> float:
        return 0.01

    def report(self) -> EngineReport:
        return self.now

    def close(self) -> None:
        self.listeners.clear()

    def see(self, *samples: Sample) -> None:
        for listener in self.listeners:
            listener.receive(samples)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


def record(engine: ScriptedEngine, info: CaptureInfo, *samples: Sample) -> Profile:
    capture = CAPTURES[info.kind](Sources(engine), 10.0)
    capture.begin()
    engine.see(*samples)
    return capture.end(info)


def values(profile: Profile) -> dict[tuple[str, str], tuple[int, ...]]:
    return {(str(each.labels[0].value), each.stack.frames[0].function): each.values for each in profile.samples}


# -- the sums ---------------------------------------------------------------------------------------------------------


def test_times_are_added_up_per_thread_and_stack() -> None:
    sums = StackSums(CPU, period_ns=None)

    sums.receive([sample(MAIN, F, cpu=5), sample(MAIN, G, cpu=7), sample(WORKER, F, cpu=11)])
    sums.receive([sample(MAIN, F, cpu=2)])

    assert {(each.labels[0].value, each.stack): each.values for each in sums.samples()} == {
        ("MainThread", F): (2, 7),
        ("MainThread", G): (1, 7),
        ("worker", F): (1, 11),
    }


def test_every_sample_says_its_threads_name_and_number() -> None:
    sums = StackSums(CPU, period_ns=None)
    sums.receive([sample(WORKER, F, cpu=1)])

    assert sums.samples()[0].labels == (Label("thread", "worker"), Label("thread_id", 12, "id"))


def test_two_threads_of_the_same_name_and_number_stay_two() -> None:
    sums = StackSums(CPU, period_ns=None)
    sums.receive([sample(Thread("w", 1), F, cpu=1), sample(Thread("w", 1), F, cpu=1)])

    assert [each.values for each in sums.samples()] == [(1, 1), (1, 1)]


def test_what_took_no_time_is_no_sample() -> None:
    sums = StackSums(CPU, period_ns=None)
    sums.receive([sample(cpu=0, wall=9), sample(cpu=-3)])

    assert sums.samples() == []


@pytest.mark.parametrize(
    ("wall", "count"), [(1, 1), (4_999_999, 1), (10_000_000, 1), (14_000_000, 1), (16_000_000, 2), (1_000_000_000, 100)]
)
def test_a_wait_counts_once_a_period_and_at_least_once(wall: int, count: int) -> None:
    sums = StackSums(WALL, period_ns=10_000_000)
    sums.receive([sample(wall=wall)])

    assert sums.samples()[0].values == (count, wall)


def test_what_is_beyond_the_bound_is_summed_in_one_visible_frame() -> None:
    """Of all threads, whatever it was done for: there may be no end of either."""
    sums = StackSums(CPU, period_ns=None, limit=3)
    stacks = [Stack((Frame(f"f{number}", "", 0, 0),)) for number in range(10)]

    sums.receive([sample(MAIN, stack, cpu=1) for stack in stacks])
    sums.receive([sample(Thread(f"worker {number}", number), stacks[0], cpu=1) for number in range(5)])
    labels = [(Label("endpoint", f"/{number}"),) for number in range(5)]
    sums.receive([sample(MAIN, stacks[0], cpu=1)._replace(labels=each) for each in labels])

    found = [(each.stack.frames[0], each.labels, each.values) for each in sums.samples()]
    assert [one[0::2] for one in found[:3]] == [(stacks[number].frames[0], (1, 1)) for number in range(3)]
    assert found[3:] == [(OTHER, (), (17, 17))]
    assert sums.overflowed == 17


def test_a_stack_that_has_its_place_keeps_it_when_the_bound_is_reached() -> None:
    sums = StackSums(CPU, period_ns=None, limit=1)
    sums.receive([sample(MAIN, F, cpu=1), sample(MAIN, G, cpu=1), sample(MAIN, F, cpu=1)])

    assert [(each.stack.frames[0].function, each.values) for each in sums.samples()] == [
        ("f", (2, 2)),
        ("<other stacks>", (1, 1)),
    ]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(-5, 10**12)), max_size=200),
    st.integers(1, 20),
)
def test_no_time_is_lost_whatever_the_bound(given_samples: list[tuple[int, int, int]], limit: int) -> None:
    threads = [Thread(f"t{number}", number) for number in range(4)]
    stacks = [Stack((Frame(f"f{number}", "", 0, 0),)) for number in range(31)]
    sums = StackSums(CPU, period_ns=None, limit=limit)

    sums.receive([sample(threads[thread], stacks[stack], cpu=cpu) for thread, stack, cpu in given_samples])

    result = sums.samples()
    counted = [cpu for *_, cpu in given_samples if cpu > 0]
    assert sum(each.values[1] for each in result) == sum(counted)
    assert sum(each.values[0] for each in result) == len(counted)
    assert len(result) <= limit + 1


# -- the captures -----------------------------------------------------------------------------------------------------


def test_a_cpu_capture_adds_up_cpu_time(engine: ScriptedEngine, make_info: MakeInfo) -> None:
    profile = record(engine, make_info(kind="cpu"), sample(cpu=7, wall=100), sample(cpu=5), sample(wall=50))

    assert values(profile) == {("MainThread", "f"): (2, 12)}
    assert profile.sample_types == (ValueType("samples", "count"), ValueType("cpu", "nanoseconds"))
    assert (profile.period_type, profile.period) == (ValueType("cpu", "nanoseconds"), 10_000_000)


def test_a_wall_capture_adds_up_the_time_that_passed(engine: ScriptedEngine, make_info: MakeInfo) -> None:
    profile = record(engine, make_info(kind="wall"), sample(cpu=7, wall=30_000_000), sample(wall=10_000_000))

    assert values(profile) == {("MainThread", "f"): (4, 40_000_000)}
    assert profile.sample_types == (ValueType("samples", "count"), ValueType("wall", "nanoseconds"))
    assert (profile.period_type, profile.period) == (ValueType("wall", "nanoseconds"), 10_000_000)


def test_several_captures_hear_the_same_and_each_its_own_part(engine: ScriptedEngine, make_info: MakeInfo) -> None:
    first, second = CAPTURES["cpu"](Sources(engine), 10.0), CAPTURES["cpu"](Sources(engine), 10.0)
    first.begin()
    engine.see(sample(cpu=1))
    second.begin()
    engine.see(sample(cpu=2))
    one = first.end(make_info())
    engine.see(sample(cpu=4))
    other = second.end(make_info())

    assert values(one) == {("MainThread", "f"): (2, 3)}
    assert values(other) == {("MainThread", "f"): (2, 6)}


@pytest.mark.parametrize("end", ["end", "cancel"])
def test_a_capture_that_is_over_listens_no_more(engine: ScriptedEngine, make_info: MakeInfo, end: str) -> None:
    capture = CAPTURES["cpu"](Sources(engine), 10.0)
    capture.begin()

    capture.cancel() if end == "cancel" else capture.end(make_info())

    assert engine.listeners == []


def test_the_duration_is_the_time_between_begin_and_end(
    engine: ScriptedEngine, make_info: MakeInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([1_000_000_000, 3_500_000_000])
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(readings))

    profile = record(engine, make_info())
    monkeypatch.undo()

    assert profile.duration_ns == 2_500_000_000


# -- the comments -----------------------------------------------------------------------------------------------------


def test_the_comments_say_which_capture_it_is(engine: ScriptedEngine, make_info: MakeInfo) -> None:
    comments = record(engine, make_info()).comments

    assert re.fullmatch(r"profiling_middleware \d+\.\d+\.\d+\S*, CPython 3\.\d+\.\d+\S* on \w+ \w+", comments[0])
    assert comments[1:4] == (
        "service: watcher",
        "instance: web-1-7-0a1b2c3d",
        "capture: 0123456789abcdef (cpu, periodic, window of 2026-01-26T15:30:00Z)",
    )
    assert comments[-1] == "limit: this engine makes things up"


def test_a_capture_that_ended_before_its_time_says_why(engine: ScriptedEngine, make_info: MakeInfo) -> None:
    comments = record(engine, make_info(partial="SIGTERM")).comments

    assert "partial: SIGTERM" in comments
    assert not [line for line in record(engine, make_info()).comments if line.startswith("partial")]


def test_the_comments_say_what_the_capture_cost(
    engine: ScriptedEngine, make_info: MakeInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([0, 2_000_000_000])
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(readings))
    engine.now = EngineReport(looks=1000, cpu_ns=500_000_000)
    capture = CAPTURES["cpu"](Sources(engine), 10.0)
    capture.begin()
    engine.now = EngineReport(looks=1190, cpu_ns=520_000_000)

    comments = capture.end(make_info()).comments
    monkeypatch.undo()

    assert "engine: scripted, 100 looks/s asked, 80.0 allowed by the overhead limit, 95.0 taken" in comments
    assert "cost of taking: 20ms CPU, 1.00% of a core, shared by all captures of that time" in comments


def test_the_comments_count_what_was_lost_during_the_capture(engine: ScriptedEngine, make_info: MakeInfo) -> None:
    engine.now = EngineReport(looks=9, lost_stacks=100, not_placed_ns=100_000_000, table_clears=10)
    capture = CAPTURES["cpu"](Sources(engine), 10.0)
    capture.begin()
    engine.now = EngineReport(looks=19, lost_stacks=103, not_placed_ns=102_500_000, table_clears=12)

    comments = capture.end(make_info()).comments

    assert "CPU not placed: 2.5 ms, under the frames in angle brackets" in comments
    assert "lost: 3 stacks changed while they were read" in comments
    assert "the table of known stacks was full 2 times and began anew" in comments


def test_a_capture_that_lost_nothing_says_nothing_of_losses(engine: ScriptedEngine, make_info: MakeInfo) -> None:
    comments = record(engine, make_info()).comments

    assert not [line for line in comments if "lost" in line or "dropped" in line or "not placed" in line]


def test_the_comments_count_the_samples_beyond_the_bound(engine: ScriptedEngine, make_info: MakeInfo) -> None:
    many = [sample(stack=Stack((Frame(f"f{number}", "", 0, 0),)), cpu=1) for number in range(20_005)]

    profile = record(engine, make_info(), *many)

    assert "dropped: the stacks of 5 samples, summed under <other stacks>" in profile.comments
    assert len(profile.samples) == 20_001


def test_a_capture_of_a_moment_has_comments_too(
    engine: ScriptedEngine, make_info: MakeInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: 5)

    profile = record(engine, make_info())
    monkeypatch.undo()

    assert profile.duration_ns == 0
    assert [line for line in profile.comments if line.startswith("cost of taking: 0ms CPU")]


@pytest.mark.parametrize(("seconds", "looks"), [(1.0, 20.0), (100.0, 6.0), (3600.0, 5.0)])
def test_who_waits_is_looked_at_the_oftener_the_shorter_the_capture(
    engine: ScriptedEngine, seconds: float, looks: float
) -> None:
    CAPTURES["cpu"](Sources(engine), seconds).begin()
    CAPTURES["wall"](Sources(engine), seconds).begin()

    assert [listener.wait_looks for listener in engine.listeners] == [0.0, looks]


def test_the_kinds_are_those_of_the_table() -> None:
    assert sorted(CAPTURES) == ["block", "cpu", "mutex", "trace", "wall"]
