"""Sums of waits: where they go, and that they stay bounded."""

from __future__ import annotations

import pytest

from profiling_middleware.captures.collector import Collector, ContentionSums, profile_samples
from profiling_middleware.model import Contention, Frame, Label, Reason, Sample, Stack, Thread
from profiling_middleware.sampling.engine import EngineReport
from profiling_middleware.waits import wait_kind, waiting_function

THREAD = Thread("Thread-12 (serve)", 5)
MS = 1_000_000


def stack(*functions: str) -> Stack:
    return Stack(tuple(Frame(function, "a.py", 1, 1) for function in functions))


SLEEPS, WORKS, LOCKED = stack("time.nap", "app.f"), stack("app.g"), stack("app.h")


@pytest.fixture
def collector() -> Collector:
    return Collector(20.0, EngineReport())


def block(collector: Collector) -> dict[tuple[str, str], tuple[float, float]]:
    """By leaf and reason: contentions and delay."""
    return {
        (frames[0].function, str(labels[0].value)): sums
        for (frames, labels), sums in collector.collected().block.items()
    }


def waits(stack: Stack, wall: int, *, cpu: int = 0, lock: int = 0, reason: Reason = Reason.SLEEP) -> Sample:
    return Sample(0, THREAD, stack, cpu * MS, wall * MS, lock_ns=lock * MS, reason=reason)


def test_a_wait_is_what_passed_less_work_and_less_locks_that_tell_of_themselves(collector: Collector) -> None:
    collector.receive([waits(SLEEPS, 100, cpu=10, lock=30)])

    assert block(collector) == {("time.nap", "sleep"): (1, 60 * MS)}


def test_what_was_waited_before_work_is_where_the_thread_is_seen_waiting_next(collector: Collector) -> None:
    moving = waits(WORKS, 50, cpu=10)._replace(moving=True)
    collector.receive([moving, waits(LOCKED, 30, lock=20, reason=Reason.MEASURED), waits(SLEEPS, 5)])

    assert block(collector) == {("time.nap", "sleep"): (1, 55 * MS)}


def test_work_that_is_told_late_was_no_wait(collector: Collector) -> None:
    """The portable engine hands out CPU time when it knows where it was spent, and what passed meanwhile before."""
    collector.receive([waits(SLEEPS, 50), waits(WORKS, 0, cpu=30), waits(SLEEPS, 20), waits(SLEEPS, 40)])

    assert block(collector) == {("time.nap", "sleep"): (2, 80 * MS)}


def test_work_alone_is_no_wait(collector: Collector) -> None:
    collector.receive([waits(WORKS, 10, cpu=10)])

    assert block(collector) == {}


def test_waits_and_releases_are_two_profiles(collector: Collector) -> None:
    wait = Contention(THREAD, LOCKED, None, 2.0, 8.0 * MS, (Label("endpoint", "/pay"),))
    release = Contention(THREAD, WORKS, stack("threading.Condition.wait", "queue.Queue.get", "app.h"), 1.0, 4.0 * MS)
    collector.receive_contentions([wait, release, wait])
    collected = collector.collected()

    (waited,) = profile_samples(collected.block)
    (released,) = profile_samples(collected.mutex)
    name = Label("thread", "Thread-N (serve)")
    assert (waited.values, waited.labels) == ((4, 16 * MS), (Label("wait", "lock"), name, Label("endpoint", "/pay")))
    assert (released.values, released.labels) == ((1, 4 * MS), (Label("wait", "lock"), Label("waiter", "app.h"), name))


def test_who_brings_work_has_held_nobody_up(collector: Collector) -> None:
    worker = stack("threading.Condition.wait", "queue.Queue.get", "anyio._backends._asyncio.WorkerThread.run")
    wait = Contention(THREAD, worker, None, 1.0, 900.0 * MS)
    brought = Contention(THREAD, WORKS, worker, 1.0, 900.0 * MS)
    collector.receive_contentions([wait, brought, wait, brought])
    collected = collector.collected()

    (idle,) = profile_samples(collected.block)
    assert (idle.values, idle.labels[0]) == ((2, 1_800 * MS), Label("wait", "idle"))
    assert collected.mutex == {}


def test_the_profilers_own_threads_are_left_out(collector: Collector) -> None:
    own = Thread("profiling-encode", 9)
    collector.receive([waits(SLEEPS, 100)._replace(thread=own)])
    collector.receive_contentions([Contention(own, SLEEPS, None, 1.0, 1.0), Contention(own, SLEEPS, SLEEPS, 1.0, 1.0)])

    assert (collector.collected().block, collector.collected().mutex) == ({}, {})


def test_what_was_read_stays_as_it_was(collector: Collector) -> None:
    collector.receive([waits(SLEEPS, 1)])
    before = collector.collected()
    collector.receive([waits(SLEEPS, 1)])

    assert [delay for _, delay in before.block.values()] == [1 * MS]
    assert [delay for _, delay in collector.collected().block.values()] == [2 * MS]


def test_stacks_are_bounded_and_what_exceeds_them_is_one_visible_frame() -> None:
    sums = ContentionSums(limit=2)
    for number in range(5):
        sums.add(stack(f"app.f{number}"), (), 1, 10)
    sums.add(stack("app.f0"), (), 1, 10)

    found = {frames[0].function: pair for (frames, _), pair in sums.copy().items()}
    assert found == {"app.f0": (2, 20), "app.f1": (1, 10), "<other stacks>": (3, 30)}
    assert sums.overflowed == 3


def test_threads_that_end_before_they_are_seen_waiting_do_not_pile_up(collector: Collector) -> None:
    for number in range(3_000):
        thread = Thread(f"Thread-{number}", number)
        collector.receive([waits(WORKS, 2)._replace(thread=thread, moving=True)])

    assert len(collector._carried) == 1_000
    assert block(collector) == {("<not seen waiting>", "other"): (2_000, 4_000 * MS)}


@pytest.mark.parametrize(
    ("reason", "functions", "kind"),
    [
        (Reason.LOCK, ("app.f",), "lock"),
        (Reason.GIL, ("app.f",), "gil"),
        (Reason.NETWORK, ("app.f",), "network"),
        (Reason.POLL, ("socket.socket.recv", "app.f"), "network"),
        (Reason.FILE, ("app.f",), "file"),
        (Reason.CHILD, ("subprocess.Popen._try_wait", "subprocess.Popen._wait", "app.f"), "subprocess"),
        (Reason.SLEEP, ("subprocess.Popen._wait", "subprocess.Popen.wait", "app.f"), "subprocess"),
        (Reason.POLL, ("selectors._PollLikeSelector.select", "subprocess.Popen.communicate", "app.f"), "subprocess"),
        (Reason.EVENTS, ("selectors.EpollSelector.select", "asyncio.base_events.BaseEventLoop._run_once"), "idle"),
        (Reason.ACCEPT, ("socket.socket.accept", "app.serve"), "idle"),
        (Reason.LOCK, ("concurrent.futures.thread._worker", "threading.Thread.run"), "idle"),
        (Reason.LOCK, ("threading.Condition.wait", "queue.Queue.get", "anyio._backends._asyncio.WorkerThread.run"), "idle"),  # noqa: E501
        (Reason.LOCK, ("threading.Condition.wait", "queue.Queue.get", "app.worker"), "lock"),
        (Reason.FILE, ("multiprocessing.connection.Connection._recv", "uvicorn.supervisors.multiprocess.Process.pong"), "idle"),  # noqa: E501
        (Reason.LOCK, ("app.pay", "anyio._backends._asyncio.WorkerThread.run"), "lock"),
        (Reason.AWAIT, ("asyncio.tasks.sleep", "app.f", "uvicorn.protocols.http.h11_impl.RequestResponseCycle.run_asgi"), "await"),  # noqa: E501
        (Reason.AWAIT, ("asyncio.tasks.sleep", "uvicorn.server.Server.main_loop", "uvicorn.server.Server.serve"), "idle"),  # noqa: E501
        (Reason.EVENT_LOOP, ("app.f",), "event-loop"),
        (Reason.UNKNOWN, ("app.f",), "other"),
        (Reason.OTHER, ("app.f",), "other"),
    ],
)  # fmt: skip
def test_what_a_wait_is_called(reason: Reason, functions: tuple[str, ...], kind: str) -> None:
    assert wait_kind(reason, stack(*functions)) == kind


def test_who_waits_is_not_how_it_waits() -> None:
    assert waiting_function(stack("threading.Condition.wait", "threading.Event.wait", "app.f", "app.g")) == "app.f"
    assert waiting_function(stack("threading.Condition.wait")) == "threading.Condition.wait"
    assert waiting_function(stack()) == ""
