"""Where the system has no CPU clock for other threads (macOS): the process's clock, shared out by what is seen."""

from __future__ import annotations

import sys
import threading
import time
from types import FrameType

# A thread whose leaf is in one of these has called into C to wait; the standard library waits nowhere else.
_WAITING_MODULES = frozenset(
    {"asyncio.base_events", "concurrent.futures.thread", "multiprocessing.connection", "queue", "select"}
    | {"selectors", "socket", "socketserver", "ssl", "subprocess", "threading"}
)


class EstimatedClocks:
    """Stands in for `clocks.ThreadClocks`: totals of the process are exact, those of its threads are estimates."""

    exact = False

    def __init__(self) -> None:
        self._spent: dict[int, int] = {}
        self._alive: set[int] = set()
        self._shared_ns = time.process_time_ns()

    def refresh(self) -> None:
        """Shares what the process has used since the last call among the threads that do not seem to wait."""
        used = time.process_time_ns() - self._shared_ns
        self._shared_ns += used
        own = threading.get_ident()
        frames = sys._current_frames()
        self._alive = set(frames)
        for ended in self._spent.keys() - self._alive:
            del self._spent[ended]
        busy = [ident for ident, frame in frames.items() if ident != own and not _waits(frame)]
        frames.clear()
        for ident in busy:
            self._spent[ident] = self._spent.get(ident, 0) + used // len(busy)

    def cpu_ns(self, native_id: int) -> int | None:
        """Estimated CPU time of a thread in nanoseconds, None when it has ended."""
        return self._spent.get(native_id, 0) if native_id in self._alive else None

    def native_id(self, ident: int) -> int | None:
        """Python's own number: nothing here needs the system's."""
        return ident


def _waits(leaf: FrameType) -> bool:
    return leaf.f_globals.get("__name__") in _WAITING_MODULES
