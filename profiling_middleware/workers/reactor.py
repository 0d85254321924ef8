"""All sockets between workers on one daemon thread, which exists only while there are any."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from profiling_middleware.descriptors import above_standard_streams
from profiling_middleware.threads import OwnThread, wait_until_gone

READABLE, WRITABLE = select.POLLIN, select.POLLOUT
_LONGEST_WAIT_SECONDS = 3600.0

Action = Callable[[], object]


class Handler(Protocol):
    """One socket. Everything is called on the reactor's thread, but `close` in a forked child, too."""

    @property
    def fileno(self) -> int:
        """Its descriptor."""

    @property
    def events(self) -> int:
        """What it waits for: READABLE, WRITABLE, both or 0."""

    @property
    def deadline(self) -> float | None:
        """Until when on the monotonic clock it waits."""

    def on_ready(self) -> None:
        """Something of that is the case, or the other end has hung up."""

    def on_deadline(self) -> None:
        """The time has come; it must have a later one afterwards, or be gone."""

    def on_failure(self) -> None:
        """It has raised something, which is logged: it must be gone afterwards."""

    def close(self) -> None:
        """Closes the socket; may be called twice."""


class Reactor:
    """Calls its handlers when their sockets are ready, or their time has come."""

    def __init__(self, logger: logging.Logger, name: str = "profiling-workers") -> None:
        self._logger = logger
        self._name = name
        self._lock = threading.Lock()
        self._actions: deque[Action] = deque()
        self._handlers: list[Handler] = []
        self._thread: threading.Thread | None = None
        self._waker: tuple[int, int] | None = None
        self._paused = False

    def call_soon(self, action: Action) -> bool:
        """Runs `action` on its thread. From any thread, not from a signal handler.

        False when there is none and none can be started any more, because the interpreter is exiting.
        """
        with self._lock:
            self._actions.append(action)
            self._wake()
            self._ensure_thread()
            return self._thread is not None or self._paused

    def add(self, handler: Handler) -> None:
        """From now on it is called. On the reactor's thread."""
        self._handlers.append(handler)

    def remove(self, handler: Handler) -> None:
        """Closes it and forgets it. On the reactor's thread."""
        with contextlib.suppress(ValueError):
            self._handlers.remove(handler)
        handler.close()

    def close(self) -> None:
        """Closes all sockets, whatever they wait for, and lets the thread end. From any thread."""

        def close() -> None:
            for handler in list(self._handlers):
                self.remove(handler)

        self.call_soon(close)

    def pause(self, timeout: float) -> None:
        """Before a fork: lets the thread end, its sockets stay. Waits at most `timeout` seconds."""
        with self._lock:
            self._paused = True
            thread = self._thread
            self._wake()
        if thread is not None and thread is not threading.current_thread():
            wait_until_gone(thread, timeout)

    def resume(self) -> None:
        """After a fork, in the parent."""
        with self._lock:
            self._paused = False
            if self._handlers or self._actions:
                self._ensure_thread()

    def abandon(self) -> None:
        """In a forked child: closes its copies of the parent's sockets. It cannot be used any more."""
        for handler in self._handlers:
            handler.close()
        self._handlers.clear()
        self._close_waker()

    def _ensure_thread(self) -> None:
        if self._thread is not None or self._paused:
            return
        try:
            if self._waker is None:
                self._waker = _waker()
            self._thread = OwnThread(self._run, self._name)
            self._thread.start()
        except (OSError, RuntimeError):  # no descriptor, or no thread: the next call tries again
            self._thread = None

    def _wake(self) -> None:
        if self._waker is not None:
            with contextlib.suppress(BlockingIOError):  # it is awake already
                os.write(self._waker[1], b"\0")

    def _close_waker(self) -> None:
        waker, self._waker = self._waker, None
        for descriptor in waker or ():
            os.close(descriptor)

    def _run(self) -> None:
        while (actions := self._next()) is not None:
            for action in actions:
                self._try(action)
            self._serve()

    def _next(self) -> list[Action] | None:
        # Under the lock, so that call_soon() either finds this thread alive and its action is seen, or starts anew.
        with self._lock:
            if self._paused or not (self._handlers or self._actions):
                self._thread = None
                self._close_waker()
                return None
            actions = list(self._actions)
            self._actions.clear()
            return actions

    def _serve(self) -> None:
        """Waits until something happens, and has it seen to."""
        waker = self._waker
        if waker is None or not self._handlers:
            return
        poll = select.poll()
        poll.register(waker[0], READABLE)
        waiting = {handler.fileno: handler for handler in self._handlers}
        for descriptor, handler in waiting.items():
            poll.register(descriptor, handler.events)
        ready = poll.poll(self._wait_seconds() * 1000)
        for descriptor, _ in ready:
            if descriptor == waker[0]:
                os.read(descriptor, 4096)
            elif waiting[descriptor] in self._handlers:  # an earlier one may have removed it
                self._try(waiting[descriptor].on_ready, waiting[descriptor])
        now = time.monotonic()
        for handler in list(self._handlers):
            if handler.deadline is not None and handler.deadline <= now and handler in self._handlers:
                self._try(handler.on_deadline, handler)

    def _wait_seconds(self) -> float:
        deadlines = [handler.deadline for handler in self._handlers if handler.deadline is not None]
        wait = min(deadlines) - time.monotonic() if deadlines else _LONGEST_WAIT_SECONDS
        return min(max(0.0, wait), _LONGEST_WAIT_SECONDS)

    def _try(self, action: Action, handler: Handler | None = None) -> None:
        try:
            action()
        except Exception:
            with contextlib.suppress(Exception):  # of the service's own handlers of the log
                self._logger.exception("profiling: an internal step failed; the service is not affected")
            if handler is not None:
                with contextlib.suppress(Exception):
                    handler.on_failure()
                self.remove(handler)


def _waker() -> tuple[int, int]:
    """A pipe whose ends never block. Raises OSError."""
    reading, writing = map(above_standard_streams, os.pipe())
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    return reading, writing
