"""Jobs one after the other."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
import weakref

import pytest

from profiling_middleware.lane import Lane


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("profiling-")]


@pytest.fixture
def lane(logger: logging.Logger) -> Lane:
    return Lane("profiling-lane", 1000, logger)


class Plug:
    """A job that holds the lane until it is pulled."""

    def __init__(self, deadline: float) -> None:
        self.begun, self._pulled, self._deadline = threading.Event(), threading.Event(), deadline

    def __call__(self) -> None:
        self.begun.set()
        assert self._pulled.wait(self._deadline)

    def pull(self) -> None:
        self._pulled.set()


def test_a_lane_has_no_thread_until_there_is_a_job(lane: Lane, deadline: float) -> None:
    assert threads() == []
    assert lane.drain(deadline)


def test_jobs_are_done_in_order_on_one_daemon_thread(lane: Lane, deadline: float) -> None:
    done: list[tuple[int, str, bool]] = []

    def job(number: int) -> None:
        thread = threading.current_thread()
        done.append((number, thread.name, thread.daemon))

    for number in range(100):
        assert lane.submit(lambda number=number: job(number))

    assert lane.drain(deadline)
    assert done == [(number, "profiling-lane", True) for number in range(100)]


def test_the_thread_ends_with_the_last_job(lane: Lane, deadline: float) -> None:
    lane.submit(lambda: None)

    assert lane.drain(deadline)

    for thread in threading.enumerate():
        if thread.name == "profiling-lane":
            thread.join(deadline)
    assert threads() == []


def test_a_job_that_raises_is_logged_and_does_not_stop_the_others(
    lane: Lane, deadline: float, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []
    lane.submit(lambda: 1 / 0)
    lane.submit(lambda: done.append("next"))

    assert lane.drain(deadline)

    assert done == ["next"]
    assert [(record.levelname, record.getMessage(), record.exc_info is not None) for record in caplog.records] == [
        ("ERROR", "profiling: an internal step failed; the service is not affected", True)
    ]


def test_a_full_lane_refuses_a_job_and_takes_the_next_one_when_there_is_room(
    logger: logging.Logger, deadline: float
) -> None:
    lane, plug, done = Lane("profiling-lane", 2, logger), Plug(deadline), []
    lane.submit(plug)
    assert plug.begun.wait(deadline)

    taken = [lane.submit(lambda number=number: done.append(number)) for number in range(4)]
    plug.pull()

    assert taken == [True, True, False, False]
    assert lane.drain(deadline)
    assert done == [0, 1]
    assert lane.submit(lambda: None)
    assert lane.drain(deadline)


def test_drain_waits_for_the_job_that_is_being_done(lane: Lane, deadline: float) -> None:
    plug = Plug(deadline)
    lane.submit(plug)
    assert plug.begun.wait(deadline)

    assert lane.drain(0.02) is False
    plug.pull()
    assert lane.drain(deadline) is True


def test_drain_returns_at_its_bound_when_a_job_hangs(lane: Lane, deadline: float) -> None:
    plug = Plug(deadline)
    lane.submit(plug)

    started = time.monotonic()
    drained = lane.drain(0.1)

    assert drained is False
    assert 0.1 <= time.monotonic() - started < 2
    plug.pull()
    assert lane.drain(deadline)


def test_pause_ends_the_thread_after_its_present_job_and_keeps_the_others(lane: Lane, deadline: float) -> None:
    plug, done = Plug(deadline), []
    lane.submit(plug)
    lane.submit(lambda: done.append("kept"))
    assert plug.begun.wait(deadline)
    threading.Timer(0.02, plug.pull).start()

    lane.pause(deadline)

    assert done == []
    assert lane.drain(0) is False
    lane.resume()
    assert lane.drain(deadline)
    assert done == ["kept"]


def test_jobs_submitted_during_a_pause_wait_for_its_end(lane: Lane, deadline: float) -> None:
    done: list[str] = []
    lane.pause(deadline)

    assert lane.submit(lambda: done.append("late"))

    assert threads() == []
    lane.resume()
    assert lane.drain(deadline)
    assert done == ["late"]


def test_a_pause_does_not_wait_longer_than_its_bound(lane: Lane, deadline: float) -> None:
    plug = Plug(deadline)
    lane.submit(plug)
    assert plug.begun.wait(deadline)

    lane.pause(0.01)

    plug.pull()
    lane.resume()
    assert lane.drain(deadline)


def test_a_finished_job_is_let_go_of_before_the_next_one_comes(lane: Lane, deadline: float) -> None:
    class Job:
        def __call__(self) -> None:
            """Holds a whole profile, say."""

    lane.keep()
    job = Job()
    gone = weakref.ref(job)
    lane.submit(job)
    del job
    assert lane.drain(deadline)

    gc.collect()

    assert gone() is None
    lane.release()


def test_no_job_of_many_threads_is_lost_while_the_thread_comes_and_goes(lane: Lane, deadline: float) -> None:
    done: list[tuple[int, int]] = []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def submit(caller: int) -> None:
        for number in range(200):
            seen = threading.Event()
            assert lane.submit(lambda number=number, seen=seen: (done.append((caller, number)), seen.set()))
            assert seen.wait(deadline)

    callers = [threading.Thread(target=submit, args=(caller,)) for caller in range(8)]
    try:
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(deadline)
    finally:
        sys.setswitchinterval(before)

    assert sorted(done) == [(caller, number) for caller in range(8) for number in range(200)]
    assert lane.drain(deadline)


def refuse_to_start(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_thread_that_cannot_be_started_does_not_block_the_lane_for_good(
    lane: Lane, deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a process that has reached its limit of threads for a moment."""
    done: list[str] = []

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse_to_start)
        assert lane.submit(lambda: done.append("first"))
    assert lane.submit(lambda: done.append("second"))

    assert lane.drain(deadline)
    assert done == ["first", "second"]


def test_where_no_thread_can_be_started_drain_does_what_is_queued(
    lane: Lane, deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the exit of the interpreter."""
    done: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", refuse_to_start)
    lane.submit(lambda: done.append(threading.current_thread().name))

    assert lane.drain(deadline)

    assert done == [threading.current_thread().name]


def test_a_kept_lane_has_its_thread_before_and_after_a_job(lane: Lane, deadline: float) -> None:
    done: list[int] = []

    lane.keep()
    assert threads() == ["profiling-lane"]
    for number in range(3):
        lane.submit(lambda number=number: done.append(number))
        assert lane.drain(deadline)

    assert done == [0, 1, 2]
    assert threads() == ["profiling-lane"]
    lane.release()


def test_a_lane_that_is_released_ends_its_thread_when_nothing_is_queued(lane: Lane, deadline: float) -> None:
    done: list[str] = []
    lane.keep()
    lane.submit(lambda: done.append("last"))

    lane.release()

    for thread in threading.enumerate():
        if thread.name == "profiling-lane":
            thread.join(deadline)
    assert (threads(), done) == ([], ["last"])


def test_a_kept_lane_has_no_thread_during_a_pause(lane: Lane, deadline: float) -> None:
    lane.keep()

    lane.pause(deadline)

    for thread in threading.enumerate():
        if thread.name == "profiling-lane":
            thread.join(deadline)
    assert threads() == []
    lane.resume()
    assert threads() == ["profiling-lane"]
    lane.release()
