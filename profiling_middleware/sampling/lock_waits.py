"""Waits for locks, measured where they happen, for the portable engine: the counterpart of csrc/locks.c.

Nothing here takes a lock of its own. What a lock knows of its waiters is changed by each waiter for itself, and by
whoever holds the lock: a signal handler or a finalizer may come in between and wait for locks, too.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from profiling_middleware.contentions import ContentionEvents
from profiling_middleware.labels import CURRENT
from profiling_middleware.model import Contention, Stack, Thread
from profiling_middleware.sampling.clocks import native_thread_name
from profiling_middleware.sampling.engine import Listener
from profiling_middleware.sampling.measured_locks import LockFactories
from profiling_middleware.stacks import StackTable

# What is over sooner was not to wait, or is the return to a lock that was free.
_LEAST_WAIT_NS = 5_000
_MOST_THREADS = 1_000

HIDDEN = f"{__name__}.", f"{LockFactories.__module__}."
"""How the names of functions begin that are on top of a stack only because a lock is measured."""


class _Waiter(NamedTuple):
    began: int
    at: Stack


class _ThreadWaits:
    """What a thread has waited for measured locks."""

    __slots__ = ("since_ns", "total_ns")

    def __init__(self) -> None:
        self.since_ns = 0
        """When the wait began that it is in; 0 between waits."""
        self.total_ns = 0


class LockWaits:
    """Measures while somebody listens; see `measured_locks.LockObserver`."""

    def __init__(self, events: ContentionEvents | None = None, most_threads: int = _MOST_THREADS) -> None:
        self._most_threads = most_threads
        self._listeners: list[Listener] = []
        self._factories = LockFactories(self)
        self._events = events or ContentionEvents()
        self._stacks = StackTable(hidden=HIDDEN)
        self._threads: dict[int, _ThreadWaits] = {}
        self.own_ns = 0
        """What measuring has cost; approximate, as several threads add to it."""

    @property
    def listens(self) -> bool:
        """Whether anybody does."""
        return bool(self._listeners)

    @property
    def dropped(self) -> int:
        """Contentions for which there was no room."""
        return self._events.dropped

    def set_rates(self, block_rate_ns: int, mutex_fraction: int) -> None:
        """As `sampling.engine.Engine.set_wait_rates`."""
        self._events.set_rates(block_rate_ns, mutex_fraction)

    def attach(self, listener: Listener) -> None:
        """From now on `listener` receives contentions."""
        self.flush()
        self._listeners.append(listener)
        self._factories.replace()

    def detach(self, listener: Listener) -> None:
        """Hands `listener` everything up to now, then nothing more."""
        if listener in self._listeners:
            self.flush()
            self._listeners.remove(listener)
            if not self._listeners:
                self.close()

    def flush(self) -> None:
        """Hands all listeners everything up to now."""
        contentions = self._events.fetch()
        if contentions:
            for listener in self._listeners:
                listener.receive_contentions(contentions)
        if self._stacks.is_full:
            self._stacks = StackTable(hidden=HIDDEN)  # whoever uses the old one at this moment goes on with it
        if len(self._threads) > self._most_threads:
            self._forget_ended()

    def close(self) -> None:
        """Puts everything back; in a forked child, too."""
        self._listeners.clear()
        self._factories.put_back()
        self._events.clear()
        self._stacks = StackTable(hidden=HIDDEN)  # it keeps code alive
        self._threads.clear()

    # -- for the engine's looks ----------------------------------------------------------------------------------

    def waited_ns(self, ident: int, until: int) -> int:
        """What a thread has waited for measured locks since it was seen here first."""
        waits = self._threads.get(ident)
        if waits is None:
            return 0
        since = waits.since_ns
        return waits.total_ns + (max(0, until - since) if since else 0)

    def is_waiting(self, ident: int) -> bool:
        """Whether a thread waits for a measured lock now."""
        waits = self._threads.get(ident)
        return waits is not None and waits.since_ns != 0

    def forget(self, ident: int) -> None:
        """The thread has ended."""
        self._threads.pop(ident, None)

    def _forget_ended(self) -> None:
        alive = sys._current_frames()
        for ident in list(self._threads):
            if ident not in alive:
                self.forget(ident)

    # -- in the threads of the service ---------------------------------------------------------------------------

    def wait(self, lock: Any, acquire: Callable[..., Any], *arguments: Any) -> Any:
        if not self._listeners:
            return acquire(*arguments)
        asked, ident = time.monotonic_ns(), threading.get_ident()
        # Taken before and not after the wait: it costs nobody anything now.
        at = self._stack(sys._getframe(2))
        began = time.monotonic_ns()
        # A signal handler may wait meanwhile, in the same thread and for the same lock.
        outer = lock.waiters.get(ident)
        lock.waiters[ident] = _Waiter(began, at)
        waits = self._threads.setdefault(ident, _ThreadWaits())
        since, waits.since_ns = waits.since_ns, waits.since_ns or began
        self.own_ns += began - asked
        result: Any = False
        try:
            result = acquire(*arguments)
        finally:
            now = time.monotonic_ns()
            if since == 0:
                waits.total_ns, waits.since_ns = waits.total_ns + now - waits.since_ns, 0
            if outer is None:
                lock.waiters.pop(ident, None)
            else:
                lock.waiters[ident] = outer
            self._note_wait(lock, at, began, now, result)
        return result

    def released(self, lock: Any) -> None:
        if not self._listeners:
            return
        now = time.monotonic_ns()
        before, lock.released_ns = lock.released_ns, now
        # dict() copies in one step.
        waiters = list(dict(lock.waiters).values())
        waited = sum(now - max(waiter.began, before) for waiter in waiters)
        counts_for = self._events.choose_release() if waited else 0.0
        lock.last_release = None
        if counts_for:
            stack = self._stack(sys._getframe(2))
            release = Contention(_this_thread(), stack, waiters[-1].at, counts_for, counts_for * waited)
            lock.last_release = release
            self._events.note(release, CURRENT.get(None))
        self.own_ns += time.monotonic_ns() - now

    def _note_wait(self, lock: Any, at: Stack, began: int, now: int, result: object) -> None:
        waited = now - began
        if not self._listeners or (waited < _LEAST_WAIT_NS and result is not True):
            return
        release = lock.last_release if result is not False and lock.released_ns > began else None
        if release is not None:
            # It has caused what was waited after it, too: until the system and the GIL let the waiter go on.
            late = release.times * (now - lock.released_ns)
            self._events.note(release._replace(times=0.0, delay_ns=late), None)
        chosen = self._events.choose_wait(max(1, waited))
        if chosen is not None:
            self._events.note(Contention(_this_thread(), at, None, *chosen), CURRENT.get(None))
        self.own_ns += time.monotonic_ns() - now

    def _stack(self, frame: FrameType) -> Stack:
        return self._stacks.take(frame) or self._stacks.of(())


def _this_thread() -> Thread:
    # Not current_thread(): that enters a thread that it does not know, such as one just being born, into its list.
    ident, native_id = threading.get_ident(), threading.get_native_id()
    known = getattr(threading, "_active", {}).get(ident)
    return Thread(known.name if known is not None else native_thread_name(native_id), native_id)
