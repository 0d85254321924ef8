"""Imports on the profiler's own threads, which a fork has to wait for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from profiling_middleware.gil import giving_way

# A fork that has not let go of it by then never will. Longer than an import takes.
_LONGEST_SECONDS = 5.0


class Imports:
    """Which of the profiler's threads is importing.

    Python locks a module while it is being imported, and a child forked meanwhile has the lock without the thread that
    would open it: whoever imports that module in the child waits for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    @contextmanager
    def underway(self) -> Iterator[None]:
        """Within this block a thread may import; other threads get the GIL soon, and a fork waits for its end."""
        acquired = self._lock.acquire(timeout=_LONGEST_SECONDS)
        try:
            with giving_way():
                yield
        finally:
            if acquired:
                self._lock.release()

    def before_fork(self, timeout: float) -> None:
        """Waits up to `timeout` seconds until nothing is being imported, and lets nothing begin."""
        self._lock.acquire(timeout=timeout)

    def after_fork_in_parent(self) -> None:
        """Lets imports begin again."""
        with contextlib.suppress(RuntimeError):  # the time was not enough, and another thread has the lock
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begins anew: a thread that is not in the child may hold the lock."""
        self._lock = threading.RLock()
