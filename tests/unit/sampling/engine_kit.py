"""What the tests of the engines share: listeners, threads whose CPU time is known, and the timer's part."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable, Sequence

from profiling_middleware.model import Contention, Frame, Sample
from profiling_middleware.sampling.engine import Engine

DEADLINE = 30.0
"""Seconds that anything may take; reaching it is a failure, not a pause."""
NOT_SEEN_NS = 350_000_000
"""A thread that runs alone and that nobody announces may use so much before it is found."""


class Heard:
    """A listener that keeps everything."""

    def __init__(self, *, wants_waits: bool = False, wait_moments_ns: int = 0) -> None:
        self.wait_looks = 20.0 if wants_waits else 0.0
        self.hears_work, self.hears_waits, self.wait_moments_ns = True, False, wait_moments_ns
        self.samples: list[Sample] = []
        self.lock_waits: list[Contention] = []

    def receive_contentions(self, contentions: Sequence[Contention]) -> None:
        """None are asked for."""

    def receive_lock_waits(self, waits: Sequence[Contention]) -> None:
        assert waits
        self.lock_waits += waits

    def receive(self, samples: Sequence[Sample]) -> None:
        self.samples += samples

    def cpu_ns(self, thread: str | None = None, function: str = "") -> int:
        return sum(sample.cpu_ns for sample in self._of(thread, function))

    def wall_ns(self, thread: str, function: str = "") -> int:
        return sum(sample.wall_ns for sample in self._of(thread, function))

    def frames(self, thread: str | None = None) -> set[Frame]:
        """Every frame that was reported."""
        return {frame for sample in self._of(thread, "") for frame in sample.stack.frames}

    def _of(self, thread: str | None, function: str) -> list[Sample]:
        return [
            sample
            for sample in self.samples
            if thread in (None, sample.thread.name)
            and any(frame.function.endswith(function) for frame in sample.stack.frames)
        ]


class Worker:
    """A thread that does `work` and then waits; `used` is the CPU time the work took by the thread's own clock."""

    def __init__(self, name: str, work: Callable[[], object], *, wait: bool = True) -> None:
        self.begin, self.end, self.done = threading.Event(), threading.Event(), threading.Event()
        self.used = 0
        self._work, self._wait = work, wait
        self.thread = threading.Thread(target=self._run, name=name)
        self.thread.start()

    def _run(self) -> None:
        assert self.begin.wait(DEADLINE)
        before = time.thread_time_ns()
        self._work()
        self.used = time.thread_time_ns() - before
        self.done.set()
        if self._wait:
            self.waits_for_the_end()

    def waits_for_the_end(self) -> None:
        self.end.wait(DEADLINE)

    def join(self) -> None:
        self.begin.set()
        self.end.set()
        self.thread.join(DEADLINE)


class NotOfThreading:
    """A thread that `threading` knows nothing of."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.done = threading.Event()
        self.used = 0
        self._work = work
        _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        before = time.thread_time_ns()
        self._work()
        self.used = time.thread_time_ns() - before
        self.done.set()


def burn(seconds: float) -> None:
    """Uses that much CPU time on the calling thread."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(200))


def look_until(engine: Engine, done: threading.Event) -> None:
    """What the timer's thread does, on this one."""
    give_up = time.monotonic() + DEADLINE
    while not done.wait(engine.look()):
        assert time.monotonic() < give_up


def is_found_with_what_it_used(heard: Heard, used: int) -> None:
    placed, unseen = heard.cpu_ns(function=".burn"), heard.cpu_ns(function="<not seen yet>")
    assert placed >= used - NOT_SEEN_NS
    assert placed + unseen <= 1.02 * used + 5_000_000
