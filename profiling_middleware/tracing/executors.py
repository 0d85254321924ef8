"""Work that executors' threads do: how long it was queued, and how long it took.

Of `concurrent.futures` always. anyio's worker threads, in which Starlette calls endpoints that are no coroutines, are
measured for a full trace only, because that takes a frame on their stacks.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any

from profiling_middleware.failures import Failures
from profiling_middleware.threads import native_id
from profiling_middleware.trace_events import TraceEvent
from profiling_middleware.tracing.buffer import WORK, TraceBuffer
from profiling_middleware.tracing.names import function_name
from profiling_middleware.tracing.requests import WORKS_FOR, request_of_step

# Shorter than this, queued or at work, is not told in a trace that is not full.
_LEAST_NS = 1_000_000
_QUEUED = "_profiling_queued"


class ExecutorWork:
    """See `tracing.sources.TraceSource`."""

    limits: tuple[str, ...] = ()

    def __init__(self, failures: Failures | None = None) -> None:
        self._failures = failures or Failures()
        self._buffer: TraceBuffer | None = None
        self._least_ns = 0
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    def start(self, buffer: TraceBuffer, *, full: bool) -> None:
        """Executors that are loaded later are found when this is called again."""
        self._buffer = buffer
        self._least_ns = 0 if full else _LEAST_NS
        # Whoever uses executors has loaded them: a service without any is not made to.
        futures = sys.modules.get("concurrent.futures.thread")
        if futures is not None and not self._has(futures._WorkItem):
            self._replace_work_item(futures._WorkItem)
        anyio = sys.modules.get("anyio.to_thread")
        if full and anyio is not None and not self._has(anyio):
            self._put(anyio, "run_sync", self._run_sync(anyio))
        elif not full:
            self._put_back(anyio)

    def going_on(self) -> Sequence[TraceEvent]:
        return ()  # its thread's state and stack are there

    def stop(self) -> None:
        self._buffer = None
        for owner in {id(owner): owner for owner, *_ in self._replaced}.values():
            self._put_back(owner)

    def _has(self, owner: Any, replacement: Any = None) -> bool:
        return any(entry[0] is owner and replacement in (None, entry[3]) for entry in self._replaced)

    def _put(self, owner: Any, name: str, replacement: Any) -> None:
        self._replaced.append((owner, name, getattr(owner, name), replacement))
        setattr(owner, name, replacement)

    def _put_back(self, owner: Any) -> None:
        for entry in [entry for entry in self._replaced if entry[0] is owner]:
            self._replaced.remove(entry)
            _, name, original, replacement = entry
            # Who has put another one there meanwhile calls ours, and ours the original.
            if getattr(owner, name) is replacement:
                setattr(owner, name, original)

    # -- concurrent.futures --------------------------------------------------------------------------------------

    def _replace_work_item(self, work_item: Any) -> None:
        original_init, original_run = work_item.__init__, work_item.run

        @functools.wraps(original_init)
        def init(item: Any, /, *arguments: Any, **named: Any) -> None:
            original_init(item, *arguments, **named)
            try:
                if self._buffer is not None:
                    # Not twice: one of ours may still be called by whoever replaced it.
                    item.__dict__.setdefault(_QUEUED, (monotonic_ns(), WORKS_FOR.get()))
            except Exception:
                self._failures.note()

        @functools.wraps(original_run)
        def run(item: Any, /, *arguments: Any, **named: Any) -> Any:
            queued = None
            try:
                queued = item.__dict__.pop(_QUEUED, None)
                # The original lets go of it.
                name = function_name(getattr(item, "fn", None)) if queued is not None else ""
            except Exception:
                self._failures.note()
                queued = None
            if queued is None:
                return original_run(item, *arguments, **named)
            began = monotonic_ns()
            try:
                return original_run(item, *arguments, **named)
            finally:
                try:
                    self._note(name, queued[0], queued[1], began)
                except Exception:
                    self._failures.note()

        self._put(work_item, "__init__", init)
        self._put(work_item, "run", run)

    def _note(self, name: str, queued_ns: int, works_for: int, began_ns: int) -> None:
        ended_ns, buffer = monotonic_ns(), self._buffer
        if buffer is not None and (ended_ns - began_ns >= self._least_ns or began_ns - queued_ns >= self._least_ns):
            # Work for a request, or a request as work: gunicorn's threads serve them so.
            request = works_for or request_of_step(began_ns)
            buffer.add(WORK, native_id(), queued_ns, began_ns, ended_ns, name, request)

    # -- anyio ---------------------------------------------------------------------------------------------------

    def _run_sync(self, anyio: Any) -> Callable[..., Any]:
        original = anyio.run_sync

        # A coroutine function as the original is: frameworks run what is none in a thread, and await nothing.
        @functools.wraps(original)
        async def run_sync(func: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
            called = func
            try:
                if self._buffer is not None and self._has(anyio, run_sync):
                    called = self._measured(func)
            except Exception:
                self._failures.note()
            return await original(called, *arguments, **named)

        return run_sync

    def _measured(self, func: Callable[..., Any]) -> Callable[..., Any]:
        queued, works_for = monotonic_ns(), WORKS_FOR.get()

        def measured(*arguments: Any) -> Any:
            began = monotonic_ns()
            try:
                return func(*arguments)
            finally:
                try:
                    self._note(function_name(func), queued, works_for, began)
                except Exception:
                    self._failures.note()

        return measured
