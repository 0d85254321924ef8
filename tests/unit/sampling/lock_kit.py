"""What the tests of measured locks share."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from engine_kit import DEADLINE, Heard

from profiling_middleware.model import Contention
from profiling_middleware.sampling.lock_waits import LockWaits
from profiling_middleware.sampling.lock_ways import can_be_measured


class Portable(Heard):
    """Measures locks as the portable engine does, and hears of it."""

    available = staticmethod(can_be_measured)

    def __init__(self, measures: LockWaits | None = None) -> None:
        super().__init__()
        self.hears_waits = True
        self.measures = measures or LockWaits()
        self.contentions: list[Contention] = []

    def receive_contentions(self, contentions: Sequence[Contention]) -> None:
        self.contentions += contentions

    def observe(self) -> None:
        self.measures.attach(self)

    def leave(self) -> None:
        self.measures.detach(self)

    def waits(self) -> float:
        """How many were recorded since this was asked last."""
        self.measures.flush()
        found, self.contentions = self.contentions, []
        return sum(contention.times for contention in found if contention.waiter is None)

    def releases(self, function: str) -> list[Contention]:
        """Of those that were heard of since the waits were asked for last, the ones on a function of such a name."""
        self.measures.flush()
        found = [one for one in self.contentions if one.waiter is not None]
        return [one for one in found if one.stack.frames[0].function.endswith(function)]

    def when_waiting(self, *actions: Callable[[], object]) -> threading.Thread:
        """Another thread does these one by one, as soon as this one waits for a lock."""
        waits, begun = threading.get_native_id(), _thread.allocate_lock()
        begun.acquire()

        def act() -> None:
            begun.acquire()  # start() waits, too
            give_up = time.monotonic() + DEADLINE
            while not self.measures.is_waiting(waits) and time.monotonic() < give_up:
                time.sleep(0.001)
            for action in actions:
                action()

        thread = threading.Thread(target=act)
        thread.start()
        begun.release()
        return thread

    def close(self) -> None:
        self.leave()


def held(lock: Any) -> Callable[[], None]:
    """Another thread holds the lock until this is called."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        lock.acquire()
        taken.set()
        done.wait(DEADLINE)
        lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(DEADLINE)

    def end() -> None:
        done.set()
        thread.join(DEADLINE)

    return end


def fill_the_table(lock: Any) -> None:
    """So many waits for a lock that is held, each in two functions that are seen nowhere else."""
    for number in range(3_500):
        exec(compile("\n" * number + "def f(): lock.acquire(timeout=0.000003)\nf()", "made", "exec"), {"lock": lock})
