"""Looks at threads that wait for locks whose waits are measured: each has told where it is before it began to wait."""

from __future__ import annotations

import inspect
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest
from engine_kit import DEADLINE, Heard
from lock_kit import fill_the_table, held

from profiling_middleware.config import Settings
from profiling_middleware.labels import CURRENT
from profiling_middleware.model import Label, Reason
from profiling_middleware.sampling import make_label_maker
from profiling_middleware.sampling.engine import Engine

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the native engine is Linux's")

LABELS = (Label("endpoint", "/pay"),)
LEEWAY_NS = 90_000_000
"""20 looks a second are at most 75 ms apart, and what comes after the last one is not seen."""
LONG_NS = 10_000_000


class Waiter:
    """A thread that works for a request, and waits for a lock until it is told. The engine knows it before that."""

    def __init__(self, engine: Engine) -> None:
        self.lock = threading.Lock()
        self.end = held(self.lock)
        self.waited_ns = 0
        self._begins, self._goes_on = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.work, name="waiter")
        self.thread.start()
        assert self._begins.wait(DEADLINE)
        engine.look()
        self._goes_on.set()

    def work(self) -> None:
        make = make_label_maker(Settings())
        if make is not None:
            CURRENT.set(make(lambda labels: labels, LABELS))
        self._begins.set()
        assert self._goes_on.wait(DEADLINE)
        self.waits()

    def waits(self) -> None:
        began = time.monotonic_ns()
        with self.lock:
            self.waited_ns = time.monotonic_ns() - began

    def join(self) -> None:
        self.end()
        self.thread.join(DEADLINE)


def listener() -> Heard:
    """It hears of waits, so that stacks are taken as they begin, and wants looks."""
    heard = Heard(wants_waits=True)
    heard.hears_waits = True
    return heard


def line_of(function: Callable[..., object], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return next(first + number for number, line in enumerate(lines) if text in line)


def is_where_it_waited(heard: Heard, waiter: Waiter) -> None:
    mine = [sample for sample in heard.samples if sample.thread.name == "waiter"]
    waiting = [sample for sample in mine if sample.stack.frames[0].function.endswith("Waiter.waits")]
    assert sum(sample.wall_ns for sample in waiting) == pytest.approx(waiter.waited_ns, abs=LEEWAY_NS), mine
    assert {sample.stack.frames[0].line for sample in waiting if sample.wall_ns > LONG_NS} == {
        line_of(Waiter.waits, "with self.lock")
    }
    assert {sample.reason for sample in waiting if sample.wall_ns > LONG_NS} == {Reason.MEASURED}
    assert {sample.labels for sample in waiting if sample.wall_ns > LONG_NS} == {LABELS}
    assert not [sample for sample in mine if sample.stack.frames[0].function.startswith("<stack changed")]


def test_who_waits_for_a_lock_is_seen_where_it_waits_and_for_whom(native_engine: Engine) -> None:
    heard = listener()
    native_engine.attach(heard)
    waiter = Waiter(native_engine)
    time.sleep(0.5)  # what is measured is how much of it is seen
    waiter.join()
    native_engine.detach(heard)

    is_where_it_waited(heard, waiter)


def test_also_when_the_numbers_of_stacks_begin_anew_meanwhile(native_engine: Engine) -> None:
    """What it has told is of no use then: its stack is read."""
    heard, other = listener(), threading.Lock()
    native_engine.attach(heard)
    waiter = Waiter(native_engine)
    end = held(other)
    clears, turns = native_engine.report().table_clears, 0
    while native_engine.report().table_clears == clears:
        assert turns < 100
        if turns == 0:
            fill_the_table(other)
        native_engine.look()
        turns += 1
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        native_engine.flush()
        heard.samples.clear()
        began = time.monotonic_ns()
        assert waiter.thread.ident is not None
        signal.pthread_kill(waiter.thread.ident, signal.SIGUSR1)  # whoever has run is looked at
        time.sleep(0.5)
        waiter.join()
        waiter.waited_ns = time.monotonic_ns() - began
        end()
        native_engine.detach(heard)
    finally:
        signal.signal(signal.SIGUSR1, before)

    is_where_it_waited(heard, waiter)
