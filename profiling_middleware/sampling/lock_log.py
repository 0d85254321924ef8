"""What the service's threads note of their waits for locks and of releases, until the profiler's timer fetches it.

They only add: nothing is summed here, and there is no lock, so a signal handler or another thread may come in between
at any point, and wait for locks, too. Order comes from the clock, not from who was first to write.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from types import FrameType
from typing import NamedTuple

from profiling_middleware.contentions import ContentionEvents
from profiling_middleware.failures import raised_by_a_handler
from profiling_middleware.labels import CURRENT
from profiling_middleware.model import Stack
from profiling_middleware.sampling.lock_observer import Caller, Wait
from profiling_middleware.sampling.lock_ways import Way
from profiling_middleware.stacks import StackTable

HIDDEN = f"{__name__.rpartition('.')[0]}.lock_"
"""How the names of functions begin that are on top of a stack only because a lock is measured."""

_MOST_NOTED = 50_000
_DEAREST_NS = 100_000


class Release(NamedTuple):
    """One that had others waiting."""

    way: Way
    at_ns: int
    caller: Caller
    stack: Stack | None
    """None for one that is not to be recorded."""
    times: float
    """How many it counts for."""
    work: object


class LockLog:
    """Of the time in which somebody listens, from the first listener to the last. See `lock_observer.Observer`."""

    def __init__(self, events: ContentionEvents, limit: int = _MOST_NOTED) -> None:
        self._events = events
        self._limit = limit
        self.waits: deque[Wait] = deque()
        self.releases: deque[Release] = deque()
        self.outermost: dict[int, Wait] = {}
        """By native id: the wait that a thread is in, or was in last. A handler may wait within one: that is not it."""
        self.stacks = StackTable(hidden=HIDDEN)
        self.dropped = self.failed = self.cost_ns = 0
        """Contentions for which there was no room, that could not be noted, and what noting has cost; approximate."""

    def begins(self, wait: Wait, way: Way | None, frame: FrameType) -> None:
        """Notes a wait; `way` is None for the end of a thread."""
        began = time.monotonic_ns()
        if len(self.waits) >= self._limit:
            self.dropped += 1
            return
        wait.stack, wait.thread, wait.way, wait.work = self._stack(frame), _caller(), way, CURRENT.get(None)
        outer = self.outermost.get(wait.thread.native_id)
        wait.is_inner = outer is not None and not outer.ended_ns
        wait.log, wait.began_ns = self, began
        if not wait.is_inner:
            self.outermost[wait.thread.native_id] = wait
        if way is not None:
            way.waits.add(wait)
            way.note_releases()
        self.waits.append(wait)
        self._note_cost(time.monotonic_ns() - began)

    def released(self, way: Way, at_ns: int, frame: FrameType) -> None:
        """Notes a release, unless nobody waited; afterwards none is noted until somebody waits again."""
        if way.is_still_held:
            return
        began = time.monotonic_ns()
        if any(wait.log is self and not 0 < wait.ended_ns <= at_ns for wait in list(way.waits)):
            self._note(way, at_ns, frame)
        settle(way, self)
        self._note_cost(time.monotonic_ns() - began)

    def _note_cost(self, passed_ns: int) -> None:
        # What took longer has waited for the GIL meanwhile.
        self.cost_ns += min(passed_ns, _DEAREST_NS)

    def _note(self, way: Way, at_ns: int, frame: FrameType) -> None:
        if len(self.releases) >= self._limit:
            self.dropped += 1
            return
        times = self._events.choose_release()
        stack = self._stack(frame) if times else None
        self.releases.append(Release(way, at_ns, _caller(), stack, times, CURRENT.get(None)))

    def _stack(self, frame: FrameType) -> Stack:
        return self.stacks.take(frame) or self.stacks.of(())


class LockNotes:
    """Who observes all measured locks of a process: passes on to the log, while there is one. See `Observer`."""

    def __init__(self) -> None:
        self.log: LockLog | None = None
        """None while nobody listens."""

    def begins(self, wait: Wait, way: Way | None, frame: FrameType) -> None:
        log = self.log
        if log is None:
            return
        try:
            log.begins(wait, way, frame)
        except Exception as error:
            if raised_by_a_handler(error):
                raise
            log.failed += 1

    def released(self, way: Way, at_ns: int, result: object) -> object:
        log = self.log
        try:
            if log is None:
                settle(way, None)
            else:
                log.released(way, at_ns, sys._getframe(1))
        except Exception as error:
            if raised_by_a_handler(error):
                raise
            if log is not None:
                log.failed += 1
        return result


def settle(way: Way, log: LockLog | None) -> None:
    """Has the original release again, if nobody waits who is noted in `log`."""
    for wait in list(way.waits):
        if wait.ended_ns or wait.log is not log:
            way.waits.discard(wait)
    if not way.waits:
        way.release_plainly()
        # Somebody may have begun to wait between the two.
        if way.waits:
            way.note_releases()


def _caller() -> Caller:
    # Not current_thread(): that enters a thread that it does not know, such as one just being born, into its list.
    ident = threading.get_ident()
    known = getattr(threading, "_active", {}).get(ident)
    return Caller(ident, threading.get_native_id(), known.name if known is not None else None)
