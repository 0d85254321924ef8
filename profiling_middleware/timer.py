"""One thread for everything that has its time: looks at the stacks, starts and ends of captures, retries.

What runs here is short; encoding and uploading have lanes of their own. Because only this thread begins, samples and
ends captures, none of them needs a lock.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from profiling_middleware.failures import Failures
from profiling_middleware.threads import OwnThread, wait_until_gone

Action = Callable[[], object]

# Systems refuse to wait for centuries; waking once an hour costs nothing.
_LONGEST_WAIT_SECONDS = 3600.0


class TimedCall:
    """An action waiting for its time; `cancel()` forgets it."""

    __slots__ = ("action", "order", "when")

    def __init__(self, when: float, order: int, action: Action) -> None:
        self.when = when
        self.order = order
        self.action: Action | None = action

    def cancel(self) -> None:
        self.action = None

    def __lt__(self, other: TimedCall) -> bool:
        return (self.when, self.order) < (other.when, other.order)


class Timeline:
    """Actions in the order of their times, on a clock that is an argument. Not thread-safe."""

    def __init__(self, now: Callable[[], float], logger: logging.Logger) -> None:
        self.now = now
        self._failures = Failures(logger)
        self._calls: list[TimedCall] = []
        self._order = itertools.count()

    def call_at(self, when: float, action: Action) -> TimedCall:
        """Runs `action` once the clock (seconds) has reached `when`; equal times keep the order of the calls."""
        call = TimedCall(when, next(self._order), action)
        heapq.heappush(self._calls, call)
        return call

    def run_due(self) -> float | None:
        """Runs what is due and returns the seconds until the next action, None when there is none."""
        while self._calls:
            call = self._calls[0]
            if call.action is None:
                heapq.heappop(self._calls)
                continue
            remaining = call.when - self.now()
            if remaining > 0:
                return remaining
            heapq.heappop(self._calls)
            self.run(call.action)
        return None

    @property
    def waits(self) -> bool:
        """Whether anything waits for its time."""
        return bool(self._calls)

    def clear(self) -> None:
        """Forgets everything that waits."""
        self._calls.clear()

    def run(self, action: Action) -> None:
        """Runs one action; whatever it raises is logged, at most once a minute, and goes no further."""
        try:
            action()
        except Exception:
            self._failures.note()


class TimerThread:
    """Runs a timeline on a daemon thread that exists only while something waits on it."""

    def __init__(self, logger: logging.Logger, name: str = "profiling-timer") -> None:
        self.timeline = Timeline(time.monotonic, logger)
        self._name = name
        # SimpleQueue, because its put() may interrupt itself: a signal handler uses it.
        self._inbox: SimpleQueue[Action | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._paused = False

    def call_soon(self, action: Action) -> bool:
        """Runs `action` on the timer's thread. From any thread, not from a signal handler.

        False when there is no such thread and none can be started any more, because the interpreter is exiting.
        """
        self._inbox.put(action)
        with self._lock:
            self._ensure_thread()
            return self._thread is not None or self._paused

    def call_soon_from_signal(self, action: Action) -> None:
        """As `call_soon`, but takes no lock: where no thread runs, nothing waits and nothing is to be done."""
        self._inbox.put(action)

    def pause(self, timeout: float) -> None:
        """Lets the thread end, what waits stays; a fork then copies no thread of ours."""
        with self._lock:
            self._paused = True
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._inbox.put(None)
            wait_until_gone(thread, timeout)

    def resume(self) -> None:
        """Goes on after `pause`."""
        with self._lock:
            self._paused = False
            if self.timeline.waits or not self._inbox.empty():
                self._ensure_thread()

    def _ensure_thread(self) -> None:
        if self._thread is None and not self._paused:
            self._thread = OwnThread(self._run, self._name)
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = None

    def _run(self) -> None:
        while True:
            remaining = self.timeline.run_due()
            if self._ends(idle=remaining is None):
                return
            try:
                action = self._inbox.get(timeout=None if remaining is None else min(remaining, _LONGEST_WAIT_SECONDS))
            except Empty:
                continue
            if action is not None:
                self.timeline.run(action)

    def _ends(self, *, idle: bool) -> bool:
        # Under the lock, so that call_soon() either finds this thread alive and its action is seen, or starts anew.
        with self._lock:
            if self._paused or (idle and self._inbox.empty()):
                self._thread = None
                return True
            return False
