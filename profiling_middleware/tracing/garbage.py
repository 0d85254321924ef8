"""Runs of the garbage collector, during which nobody else runs."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from time import monotonic_ns
from typing import Any

from profiling_middleware.threads import native_id
from profiling_middleware.trace_events import TraceEvent
from profiling_middleware.tracing.buffer import COLLECTION, TraceBuffer

# A run of the youngest generation takes some 20 µs, and there are many.
_LEAST_NS = 100_000


class GarbageCollections:
    """See `tracing.sources.TraceSource`."""

    def __init__(self) -> None:
        self._buffer: TraceBuffer | None = None
        self._least_ns = 0
        self._began_ns = 0
        self._failures = 0

    @property
    def limits(self) -> tuple[str, ...]:
        failed = self._failures
        return (f"{failed} runs of the garbage collector could not be told: an internal step failed",) * bool(failed)

    def start(self, buffer: TraceBuffer, *, full: bool) -> None:
        self._least_ns = 0 if full else _LEAST_NS
        if self._buffer is None:
            self._buffer = buffer
            gc.callbacks.append(self._called)

    def going_on(self) -> Sequence[TraceEvent]:
        return ()  # whoever asks does not run meanwhile

    def stop(self) -> None:
        if self._buffer is not None:
            self._buffer = None
            self._began_ns = 0
            with contextlib.suppress(ValueError):  # somebody has emptied the list
                gc.callbacks.remove(self._called)

    def _called(self, phase: str, info: dict[str, Any]) -> None:
        # One run at a time in a process, begun and ended by the same thread.
        if phase == "start":
            self._began_ns = monotonic_ns()
            return
        ended_ns, began_ns, buffer = monotonic_ns(), self._began_ns, self._buffer
        if buffer is None or not began_ns or ended_ns - began_ns < self._least_ns:
            return
        found = info["generation"], info["collected"], info["uncollectable"]
        try:
            buffer.add(COLLECTION, native_id(), began_ns, ended_ns, *found)
        except Exception:
            self._failures += 1  # not logged: whatever allocated just now may hold the log's lock
