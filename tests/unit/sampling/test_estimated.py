"""Clocks for systems that have none for threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from profiling_middleware.sampling.estimated import EstimatedClocks


class Busy:
    """A thread that works until it is told to end."""

    def __init__(self) -> None:
        self._end, self.begun = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.begun.wait(10)

    def _run(self) -> None:
        self.begun.set()
        while not self._end.is_set():
            self.work()

    @staticmethod
    def work() -> None:
        total = 0
        for number in range(50_000):
            total += number

    @property
    def ident(self) -> int:
        assert self.thread.ident is not None
        return self.thread.ident

    def end(self) -> None:
        self._end.set()
        self.thread.join(10)


@pytest.fixture
def waiting() -> Iterator[threading.Thread]:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, args=(30,))
    thread.start()
    yield thread
    end.set()
    thread.join(10)


def watch(clocks: EstimatedClocks, seconds: float) -> int:
    """Looks for a while as a sampler does; returns the CPU time of the process meanwhile."""
    before = time.process_time_ns()
    clocks.refresh()
    until = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < until:
        pause.wait(0.002)
        clocks.refresh()
    return time.process_time_ns() - before


def test_the_time_of_the_process_goes_to_the_thread_that_works(waiting: threading.Thread) -> None:
    clocks, busy = EstimatedClocks(), Busy()
    try:
        watch(clocks, 0.02)
        before = clocks.cpu_ns(busy.ident)
        used = watch(clocks, 0.2)
        after = clocks.cpu_ns(busy.ident)
        assert before is not None
        assert after is not None
        assert after - before == pytest.approx(used, rel=0.2)
        assert waiting.ident is not None
        assert clocks.cpu_ns(waiting.ident) == pytest.approx(0, abs=used * 0.05)
    finally:
        busy.end()


def test_threads_that_work_share_it_equally() -> None:
    clocks, one, other = EstimatedClocks(), Busy(), Busy()
    try:
        watch(clocks, 0.02)
        before = clocks.cpu_ns(one.ident), clocks.cpu_ns(other.ident)
        used = watch(clocks, 0.2)
        after = clocks.cpu_ns(one.ident), clocks.cpu_ns(other.ident)
        gained = [later - sooner for later, sooner in zip(after, before, strict=True) if later and sooner]
        assert gained == pytest.approx([used / 2] * 2, rel=0.2)
    finally:
        one.end()
        other.end()


def test_no_more_is_given_out_than_was_used() -> None:
    before = time.process_time_ns()
    clocks, threads = EstimatedClocks(), [Busy() for _ in range(3)]
    try:
        watch(clocks, 0.1)
        given = sum(clocks.cpu_ns(busy.ident) or 0 for busy in threads)
        assert given <= time.process_time_ns() - before
    finally:
        for busy in threads:
            busy.end()


def test_a_thread_that_has_ended_has_no_clock() -> None:
    clocks, busy = EstimatedClocks(), Busy()
    clocks.refresh()
    assert clocks.cpu_ns(busy.ident) is not None
    busy.end()

    clocks.refresh()

    assert clocks.cpu_ns(busy.ident) is None


def test_threads_are_known_by_pythons_own_number() -> None:
    assert EstimatedClocks().native_id(4711) == 4711


def test_they_say_that_they_are_estimates() -> None:
    assert not EstimatedClocks.exact
