"""Jobs done one after the other on a thread of their own, which exists only while there are any, or while kept."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from profiling_middleware.failures import Failures
from profiling_middleware.threads import OwnThread, wait_until_gone

Job = Callable[[], object]


class Lane:
    """A bounded queue of jobs and the daemon thread that does them in order."""

    def __init__(self, name: str, limit: int, logger: logging.Logger) -> None:
        self._name = name
        self._limit = limit
        self._failures = Failures(logger)
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._paused = False
        self._kept = False

    def keep(self) -> None:
        """Keeps the thread while there is nothing to do: since Python 3.12 none can be started at exit."""
        with self._changed:
            self._kept = True
            self._ensure_thread()

    def release(self) -> None:
        """Lets the thread end once there is nothing to do."""
        with self._changed:
            self._kept = False
            self._changed.notify_all()

    @property
    def has_thread(self) -> bool:
        """Not while there is nothing to do, nor at exit since Python 3.12: jobs are done by who drains the lane."""
        return self._thread is not None

    def submit(self, job: Job) -> bool:
        """Queues a job; False when the queue is full and the job was not taken."""
        with self._changed:
            if len(self._jobs) >= self._limit:
                return False
            self._jobs.append(job)
            self._changed.notify_all()
            self._ensure_thread()
            return True

    def drain(self, timeout: float) -> bool:
        """Waits until nothing is queued or being done; False when `timeout` seconds were not enough."""
        with self._changed:
            threadless = self._thread is None and bool(self._jobs)
        if threadless:
            self._work()  # the interpreter is exiting and starts no thread any more
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs and not self._busy, timeout)

    def pause(self, timeout: float) -> None:
        """Lets the thread end after its present job, the others stay queued. Waits at most `timeout` seconds."""
        with self._changed:
            self._paused = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            wait_until_gone(thread, timeout)

    def resume(self) -> None:
        """Goes on after `pause`."""
        with self._changed:
            self._paused = False
            self._ensure_thread()

    def abandon(self) -> None:
        """In a forked child: jobs and thread are the parent's. Takes no lock: who held it is not in the child."""
        self._changed = threading.Condition()
        self._jobs, self._thread = deque(), None

    def _ensure_thread(self) -> None:
        if self._thread is not None or self._paused or not (self._jobs or self._kept):
            return
        self._thread = OwnThread(self._work, self._name)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None  # the interpreter is exiting: drain() does what is queued

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:
                self._failures.note()
            # A finished job may hold a whole profile: it must not live until the next one comes.
            del job

    def _next(self) -> Job | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            while not self._jobs and self._kept and not self._paused:
                self._changed.wait()
            if self._jobs and not self._paused:
                self._busy = True
                return self._jobs.popleft()
            self._thread = None
            self._changed.notify_all()
            return None
