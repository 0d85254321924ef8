"""Counters of the process, read about once a second."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

from profiling_middleware.descriptors import open_to_read
from profiling_middleware.tracing.loops import Loops
from profiling_middleware.tracing.requests import RequestSpans

_PAUSE_NS = 500_000
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Counters:
    """All calls come from the timer's thread."""

    def __init__(self, requests: RequestSpans) -> None:
        self._requests = requests
        self._loops = Loops()
        self._cpu_ns = self._time_ns = 0
        self._memory: int | None = None
        self._run_queue: int | None = None
        self._thread_id = 0

    def start(self) -> None:
        """Begins anew, on this thread."""
        self.stop()
        self._cpu_ns, self._time_ns = time.process_time_ns(), time.monotonic_ns()
        self._memory = _opened("/proc/self/statm")
        self._open_run_queue()

    def stop(self) -> None:
        """Closes what it reads from."""
        _close(self._memory)
        _close(self._run_queue)
        self._memory = self._run_queue = None
        self._loops.clear()

    def read(self) -> Iterator[tuple[str, int, float]]:
        """Each counter's name in `COUNTERS`, when it was read, and its value; those that are to be had here."""
        now, cpu = time.monotonic_ns(), time.process_time_ns()
        if now > self._time_ns:
            yield "cpu", now, 100 * (cpu - self._cpu_ns) / (now - self._time_ns)
        self._cpu_ns, self._time_ns = cpu, now
        if self._memory is not None:
            # Linux, proc_pid_statm(5): the second field is the resident set, in pages.
            yield "rss", now, int(os.pread(self._memory, 100, 0).split()[1]) * _PAGE
        yield "requests", now, len(self._requests.in_flight())
        yield "threads", now, threading.active_count()
        yield "tasks", now, self._loops.task_count()
        lag = self._loops.lag_ns(now)
        if lag is not None:
            yield "loop_lag", now, lag
        yield "gil_wait", now, self._gil_wait_ns()

    def _gil_wait_ns(self) -> int:
        """How long this thread waits for the GIL after a pause, what the scheduler took excepted."""
        if self._thread_id != threading.get_native_id():
            self._open_run_queue()  # the timer's thread ends before a fork, and this is the next one
        waited = self._run_queue_ns()
        began = time.monotonic_ns()
        # Without a pause it would mostly have it again before another thread, woken by that, has come to run.
        time.sleep(_PAUSE_NS / 1e9)
        elapsed = time.monotonic_ns() - began - _PAUSE_NS
        return max(0, elapsed - (self._run_queue_ns() - waited))

    def _open_run_queue(self) -> None:
        _close(self._run_queue)
        self._thread_id = threading.get_native_id()
        self._run_queue = _opened(f"/proc/self/task/{self._thread_id}/schedstat")

    def _run_queue_ns(self) -> int:
        # Linux, Documentation/scheduler/sched-stats.rst: the second field is the time spent waiting to run.
        return int(os.pread(self._run_queue, 100, 0).split()[1]) if self._run_queue is not None else 0


def _opened(path: str) -> int | None:
    try:
        return open_to_read(path)
    except OSError:
        return None


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
