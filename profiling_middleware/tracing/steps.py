"""What event loops do, step by step.

Steps of tasks are told by the extension, on any loop; without it, and callbacks that are no tasks' always, by asyncio's
own handles, which uvloop does not have.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any, Protocol

from profiling_middleware.failures import Failures
from profiling_middleware.threads import native_id
from profiling_middleware.trace_events import TraceEvent
from profiling_middleware.tracing.buffer import STEP, TraceBuffer
from profiling_middleware.tracing.names import function_name
from profiling_middleware.tracing.requests import WORKS_FOR
from profiling_middleware.tracing.tasks import FollowedTasks, TaskSteps

LEAST_STEP_NS = 1_000_000
# asyncio has many callbacks of its own, of some 10 µs.
_LEAST_CALLBACK_NS = 100_000


class StepHooks(Protocol):
    """The extension's: see `sampling/_native.pyi`."""

    def observe_steps(
        self,
        stepped: Callable[[Any, Any, int, int], object],
        threshold_ns: int,
        created: Callable[[Any], object] | None,
        resolved: Callable[[Any], object] | None,
        /,
    ) -> bool: ...

    def leave_steps(self) -> None: ...


class LoopSteps:
    """See `tracing.sources.TraceSource`."""

    def __init__(self, find_hooks: Callable[[], StepHooks | None], failures: Failures | None = None) -> None:
        """`find_hooks` is asked when they are needed; without the extension there are none."""
        self._find_hooks = find_hooks
        self._hooks: StepHooks | None = None
        self._buffer: TraceBuffer | None = None
        self._hooked = False
        """Whether the extension tells of tasks."""
        self._tasks: TaskSteps | FollowedTasks | None = None
        self._full = False
        self._least_ns = LEAST_STEP_NS
        self.failures = failures or Failures()
        self._original_run: Any = None
        self._run: Any = None

    def start(self, buffer: TraceBuffer, *, full: bool) -> None:
        """A service that loads asyncio later is found when this is called again."""
        if "asyncio.tasks" not in sys.modules or (self._buffer is not None and self._full == full):
            return
        first, self._buffer, self._full = self._buffer is None, buffer, full
        last = self._tasks
        if first:
            self._hooks = self._find_hooks()
        self._least_ns = _LEAST_CALLBACK_NS if full else LEAST_STEP_NS
        self._tasks = FollowedTasks(buffer) if full else TaskSteps(buffer)
        created = getattr(self._tasks, "created", None)
        resolved = getattr(self._tasks, "resolved", None)
        if self._hooks is not None:
            threshold = 0 if full else LEAST_STEP_NS
            self._hooked = self._hooks.observe_steps(self._tasks.stepped, threshold, created, resolved)
        _close(last)
        if first:
            self._replace()

    def going_on(self) -> Sequence[TraceEvent]:
        tasks = self._tasks
        return tasks.going_on() if isinstance(tasks, FollowedTasks) else ()

    def stop(self) -> None:
        if self._buffer is None:
            return
        last, self._buffer, self._tasks = self._tasks, None, None
        if self._hooks is not None:
            self._hooks.leave_steps()
        _close(last)
        self._put_back()

    @property
    def limits(self) -> tuple[str, ...]:
        """What it does not see, in sentences."""
        if self._hooked or "uvloop" not in sys.modules or self._buffer is None:
            return ()
        return ("without the extension steps of tasks are not seen on uvloop",)

    def _replace(self) -> None:
        handles: Any = sys.modules["asyncio.events"]
        original = self._original_run = handles.Handle._run

        @functools.wraps(original)
        def run(handle: Any) -> None:
            began = monotonic_ns()
            original(handle)
            ended = monotonic_ns()
            if self._run is run and (ended - began >= self._least_ns or (self._full and not self._hooked)):
                try:
                    self._note(handle, began, ended)
                except Exception:  # whatever it is, the loop is none of its business
                    self.failures.note()

        self._run = run
        handles.Handle._run = run

    def _put_back(self) -> None:
        handles: Any = sys.modules["asyncio.events"]
        # Who has put another one there meanwhile calls ours, and ours the original.
        if handles.Handle._run is self._run:
            handles.Handle._run = self._original_run
        self._run = None

    def _note(self, handle: Any, began_ns: int, ended_ns: int) -> None:
        tasks, buffer = self._tasks, self._buffer
        if tasks is None or buffer is None:
            return
        callback, context = handle._callback, handle._context
        owner = getattr(callback, "__self__", None)
        if owner is not None and isinstance(owner, sys.modules["asyncio.tasks"].Task):
            if not self._hooked:
                future = handle._args[0] if handle._args else None
                context.run(tasks.stepped, owner, future, began_ns, ended_ns)
        elif callback is not None and ended_ns - began_ns >= self._least_ns:
            request = context.get(WORKS_FOR, 0) if context is not None else 0
            buffer.add(STEP, native_id(), began_ns, ended_ns, function_name(callback), "", request, 0, ())


def _close(tasks: TaskSteps | FollowedTasks | None) -> None:
    if isinstance(tasks, FollowedTasks):
        tasks.close()
