"""Waits for asyncio's locks, measured where they happen: their methods are replaced while somebody listens.

An operation that need not wait goes straight to the original. Whoever waits is measured inside its own task, so a wait
that is cancelled or times out counts for as long as it lasted.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from profiling_middleware.contentions import ContentionEvents
from profiling_middleware.coroutine_functions import marked_as_coroutine_function
from profiling_middleware.failures import Failures
from profiling_middleware.instruments import WaitListener
from profiling_middleware.instruments.chains import ChainReader, parents
from profiling_middleware.instruments.operations import Ending, Operation, endings, operations
from profiling_middleware.instruments.wait_stacks import WaitStacks
from profiling_middleware.labels import CURRENT
from profiling_middleware.model import Contention, Thread
from profiling_middleware.waiters import WaitTable

# What waits this short did not wait: the original only went round once more.
_LEAST_WAIT_NS = 20_000
_LOOK_SECONDS = 2.0

Wait = Callable[..., Coroutine[Any, Any, Any]]
_Wait = tuple[tuple[int, str], int, int, int | None]
"""What for, whose, since when, and what its task has waited already for the wait that this one is part of.

Whose is a number: a task that nobody holds is collected while it waits, as without us.
"""


class AsyncioLocks:
    """See `instruments.Instrument`."""

    def __init__(
        self,
        events: ContentionEvents | None = None,
        failures: Failures | None = None,
        reader: ChainReader | None = None,
    ) -> None:
        """With a `reader` stacks that have been seen before need not be read frame by frame."""
        self._listeners: list[WaitListener] = []
        self._replaced: list[tuple[type, str, Any, Any]] = []
        self._table = WaitTable()
        self._nested: dict[int, int] = {}
        """By id of a task that waits for a condition: what it has waited meanwhile for the condition's lock."""
        self._stacks = WaitStacks(reader)
        self._events = events or ContentionEvents()
        self._failures = failures or Failures()

    @property
    def limits(self) -> tuple[str, ...]:
        dropped = self._events.dropped
        return (f"{dropped} contentions of asyncio's locks found no room since the process started",) * bool(dropped)

    def attach(self, listener: WaitListener) -> None:
        if self._listeners:
            self.flush()
        else:
            self._events.clear()  # of waits that ended after the last listener had left
            self._replace()
        self._listeners.append(listener)

    def detach(self, listener: WaitListener) -> None:
        if listener in self._listeners:
            self.flush()
            self._listeners.remove(listener)
            if not self._listeners:
                self._put_back()
                self._stacks.clear()

    def flush(self) -> None:
        contentions = self._events.fetch()
        if contentions:
            for listener in self._listeners:
                listener.receive_contentions(contentions)

    def look(self) -> float | None:
        if not self._listeners:
            return None
        self.flush()
        self._replace()
        self._stacks.make_room()
        return _LOOK_SECONDS

    def set_wait_rates(self, block_rate_ns: int, mutex_fraction: int) -> None:
        self._events.set_rates(block_rate_ns, mutex_fraction)

    def close(self) -> None:
        self._listeners.clear()
        self._put_back()
        self._events.clear()

    # -- what happens in the loops' threads ----------------------------------------------------------------------

    async def _measured(
        self, operation: Operation, original: Wait, subject: Any, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        wait = None
        try:
            wait = self._begun((id(subject), operation.key), sys._getframe(1))
        except Exception:
            self._failures.note()
        try:
            return await original(subject, *arguments, **named)
        finally:
            try:
                if wait is not None:
                    self._ended(wait, sys._getframe(1))
            except Exception:
                self._failures.note()

    def _begun(self, key: tuple[int, str], frame: Any) -> _Wait:
        task, began = id(asyncio.current_task()), time.monotonic_ns()
        self._table.begin(key, self._stacks.leaf(frame), began)
        outer = self._nested.get(task)
        self._nested[task] = 0
        return key, task, began, outer

    def _ended(self, wait: _Wait, frame: Any) -> None:
        key, task, began, outer = wait
        now = time.monotonic_ns()
        inner = self._nested.pop(task, 0)
        late = self._table.end(key, began, now, elsewhere=inner)
        if outer is not None:
            self._nested[task] = outer + now - began
        if late is not None:
            self._events.note(late, None)
        waited = now - began - inner
        if waited >= _LEAST_WAIT_NS:
            self._note_wait(waited, now, frame, task)

    def _note_wait(self, waited: int, now: int, frame: Any, waiter: int) -> None:
        chosen = self._events.choose_wait(waited)
        if chosen is None:
            return
        # Who is collected while it waits ends in whatever runs, or outside of all loops.
        current = asyncio.current_task() if asyncio._get_running_loop() is not None else None
        task = current if id(current) == waiter else None
        stack = self._stacks.of_task(frame, tuple(parents(task)) if task is not None else ())
        count, delay_ns = chosen
        # One that stands for others, too, is longer than it was.
        time_ns = now if count == 1 else 0
        wait = Contention(_this_thread(), stack, None, count, delay_ns, time_ns=time_ns)
        self._events.note(wait, CURRENT.get(None))

    def _note_release(self, key: tuple[int, str], frame: Any) -> None:
        waited, waiter = self._table.take(key, time.monotonic_ns())
        fraction = self._events.choose_release() if waited else 0.0
        if waiter is None or not fraction:
            return
        stack = self._stacks.of_thread(frame)
        release = Contention(_this_thread(), stack, waiter, fraction, fraction * waited)
        self._events.note(release, CURRENT.get(None))
        self._table.released(key, release)

    MEASURING = _measured.__code__
    """Who has this on its stack is measured here."""

    # -- the methods ---------------------------------------------------------------------------------------------

    def _replace(self) -> None:
        """Replaces what is not replaced yet: anyio may have been loaded since."""
        done = {(owner, name) for owner, name, _, _ in self._replaced}
        for operation in operations():
            if (operation.owner, operation.name) not in done:
                self._put(operation.owner, operation.name, self._waiting_method(operation))
        for ending in endings():
            if (ending.owner, ending.name) not in done:
                self._put(ending.owner, ending.name, self._ending_method(ending))

    def _put(self, owner: type, name: str, replacement: Any) -> None:
        self._replaced.append((owner, name, owner.__dict__[name], replacement))
        setattr(owner, name, replacement)

    def _put_back(self) -> None:
        while self._replaced:
            owner, name, original, replacement = self._replaced.pop()
            # Who has put another method there meanwhile calls ours, and ours the original.
            if owner.__dict__.get(name) is replacement:
                setattr(owner, name, original)

    def _waiting_method(self, operation: Operation) -> Any:
        original: Wait = operation.owner.__dict__[operation.name]
        waits = operation.waits

        def measured(subject: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Coroutine[Any, Any, Any]:
            coroutine: Any = self._measured(operation, original, subject, arguments, named)
            # What tasks, tracebacks and warnings are told by.
            coroutine.__name__, coroutine.__qualname__ = original.__name__, original.__qualname__
            return coroutine  # type: ignore[no-any-return]

        @functools.wraps(original)
        def method(subject: Any, /, *arguments: Any, **named: Any) -> Coroutine[Any, Any, Any]:
            try:
                measures = waits(subject) and self._listeners
            except Exception:
                self._failures.note()
                measures = False
            return measured(subject, arguments, named) if measures else original(subject, *arguments, **named)

        @functools.wraps(original)
        def plain(subject: Any, /) -> Coroutine[Any, Any, Any]:
            # As `method`, for what takes no arguments: locks are taken without waiting all the time.
            try:
                measures = waits(subject) and self._listeners
            except Exception:
                self._failures.note()
                measures = False
            return measured(subject, (), {}) if measures else original(subject)

        return marked_as_coroutine_function(plain if _takes_nothing(original) else method)

    def _ending_method(self, ending: Ending) -> Any:
        original: Callable[..., Any] = ending.owner.__dict__[ending.name]
        waited, keys = self._table.waited, ending.keys

        def note(subject: Any) -> None:
            try:
                for key in keys:
                    if (id(subject), key) in waited:
                        self._note_release((id(subject), key), sys._getframe(2))
            except Exception:
                self._failures.note()

        @functools.wraps(original)
        def method(subject: Any, /, *arguments: Any, **named: Any) -> Any:
            if waited:
                note(subject)
            return original(subject, *arguments, **named)

        @functools.wraps(original)
        def plain(subject: Any, /) -> Any:
            # As `method`, for what takes no arguments: servers call these for each request.
            if waited:
                note(subject)
            return original(subject)

        return plain if _takes_nothing(original) else method


def _takes_nothing(method: Callable[..., Any]) -> bool:
    """Whether it is a function of Python's that has no argument but its subject."""
    code = getattr(method, "__code__", None)
    if code is None or code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        return False
    return bool(code.co_argcount == 1 and code.co_kwonlyargcount == 0)


def _this_thread() -> Thread:
    return Thread(threading.current_thread().name, threading.get_native_id())
