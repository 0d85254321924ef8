"""Steps of asyncio's tasks: from one await to the next, what woke them, and for how long they waited.

Each method runs in the thread of the task's loop, right after what it tells of.
"""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import Callable
from threading import get_ident
from time import monotonic_ns
from typing import Any

from profiling_middleware.short_names import MOST_CHARACTERS, short_name
from profiling_middleware.threads import native_id
from profiling_middleware.trace_events import AwaitEvent, TaskEvent, TraceEvent
from profiling_middleware.tracing.buffer import AWAIT, STEP, TASK, TraceBuffer
from profiling_middleware.tracing.names import coroutine_name
from profiling_middleware.tracing.requests import request_of_step
from profiling_middleware.tracing.rows import NO_ROW, Rows

_DEEPEST = 128
_MOST_TASKS = 20_000
_MOST_WOKEN = 1_000
# By one step: a number and an arrow each.
_MOST_WAKES = 1_000
_TRIES = 3
_ITS_TURN = "its turn"
# A task is told after its waits: those that begin with it must not lie around it where a microsecond is not divided.
_LATER_NS = 1_000


class TaskSteps:
    """Tells of steps alone: for a trace that keeps what is long enough to matter."""

    def __init__(self, buffer: TraceBuffer) -> None:
        self._buffer = buffer

    def stepped(self, task: asyncio.Task[Any], future: object, began_ns: int, ended_ns: int) -> None:
        """`task` has run; `future` has woken it, None if none has."""
        name = coroutine_name(task.get_coro())
        self._buffer.add(
            STEP, native_id(), began_ns, ended_ns, name, short_name(task.get_name()), request_of_step(began_ns), 0, ()
        )


class _Known(weakref.ref["asyncio.Task[Any]"]):
    """A task whose steps are followed, as long as it is there."""

    __slots__ = ("began_ns", "key", "request", "row", "since_ns", "waits_for", "woken_by")

    key: int
    row: int
    began_ns: int
    since_ns: int
    waits_for: str
    woken_by: int
    request: int


class FollowedTasks:
    """Tells of everything: tasks from their making to their end, each step, each wait, and who woke whom."""

    _numbers = itertools.count(1)
    """Of all traces: the same chunk may be part of two."""

    def __init__(self, buffer: TraceBuffer) -> None:
        self._buffer = buffer
        self._rows = Rows()
        self._tasks: dict[int, _Known] = {}
        self._ended_ns: dict[int, int] = {}
        """By row: until when it is drawn."""
        self._gone = _when_gone(self._tasks, self._rows, self._ended_ns)
        self._woken: dict[int, tuple[weakref.ref[Any], int]] = {}
        """By future: what has woken who waits for it."""
        self._wakes: dict[int, list[int]] = {}
        """By thread: what its present step has woken."""

    def created(self, task: asyncio.Task[Any]) -> None:
        """`task` was made; if it is eager it has taken its first step, and may have ended."""
        if task.done() or len(self._tasks) >= _MOST_TASKS:
            return
        known = self._follow(task, monotonic_ns())
        if getattr(task.get_coro(), "cr_await", None) is not None:
            known.waits_for = _awaited(task)
        elif self._runs_here():
            known.woken_by = self._new_wake()

    def resolved(self, future: asyncio.Future[Any]) -> None:
        """`future` gets its result from the step that runs in this thread."""
        if future._callbacks:
            self._note_woken(future, self._new_wake())

    def stepped(self, task: asyncio.Task[Any], future: object, began_ns: int, ended_ns: int) -> None:
        """`task` has run; `future` has woken it, None if none has."""
        known, waits_from_ns = self._tasks.get(id(task)), ended_ns
        if known is None or known() is not task:
            known = self._follow(task, began_ns)
            waits_from_ns = max(ended_ns, known.since_ns)
        name, task_name, done = coroutine_name(task.get_coro()), task.get_name(), task.done()
        if len(task_name) > MOST_CHARACTERS:
            task_name = short_name(task_name)
        woken_by, known.woken_by = known.woken_by or self._take_woken(future), 0
        known.request = request = request_of_step(began_ns)
        if done:
            self._note_woken(task, self._new_wake())
        wakes = tuple(self._wakes.pop(get_ident(), ()))
        buffer = self._buffer
        if known.since_ns < began_ns and known.row != NO_ROW:
            buffer.add(AWAIT, known.row, known.since_ns, began_ns, known.waits_for)
        buffer.add(STEP, native_id(), began_ns, ended_ns, name, task_name, request, woken_by, wakes)
        if done:
            self._ended(known, ended_ns, task_name, name)
        else:
            known.since_ns, known.waits_for = waits_from_ns, _awaited(task)

    def going_on(self) -> list[TraceEvent]:
        """Tasks that have not ended, and what each waits for. From any thread."""
        events: list[TraceEvent] = []
        for known in _copied(self._tasks):
            task = known()
            if task is None or known.row == NO_ROW or task.done():
                continue
            name = coroutine_name(task.get_coro())
            events.append(TaskEvent(known.row, known.began_ns, 0, short_name(task.get_name()), name, known.request))
            if asyncio.current_task(task.get_loop()) is not task:
                events.append(AwaitEvent(known.row, known.since_ns, 0, known.waits_for))
        return events

    def close(self) -> None:
        """Lets go of all tasks."""
        self._tasks.clear()

    def _follow(self, task: asyncio.Task[Any], began_ns: int) -> _Known:
        """From now on; where there is no room for one more its steps alone are told."""
        known = _Known(task, self._gone)
        room = len(self._tasks) < _MOST_TASKS
        known.key, known.row = id(task), self._rows.take() if room else NO_ROW
        # Whoever had the row before may have ended since.
        row_ended_ns = self._ended_ns.get(known.row, 0)
        known.began_ns = began_ns = began_ns if began_ns > row_ended_ns else row_ended_ns
        known.since_ns, known.waits_for = began_ns + _LATER_NS, _ITS_TURN
        known.woken_by = known.request = 0
        if room:
            self._tasks[known.key] = known  # at last, as another thread may ask what goes on
        return known

    def _ended(self, known: _Known, ended_ns: int, name: str, coroutine: str) -> None:
        row, began_ns = known.row, known.began_ns
        if row == NO_ROW:
            self._tasks.pop(known.key, None)
            self._buffer.dropped += 1
            return
        self._ended_ns[row] = ended_ns = ended_ns if ended_ns > began_ns else began_ns
        self._buffer.add(TASK, row, began_ns, ended_ns, name, coroutine, known.request)
        self._tasks.pop(known.key, None)
        self._rows.give_back(row)

    def _runs_here(self) -> bool:
        return asyncio._get_running_loop() is not None and asyncio.current_task() is not None

    def _new_wake(self) -> int:
        """The number of what this step wakes; 0 when it has woken too many."""
        wakes = self._wakes.setdefault(get_ident(), [])
        if len(wakes) >= _MOST_WAKES:
            return 0
        wakes.append(number := next(self._numbers))
        return number

    def _note_woken(self, future: asyncio.Future[Any], number: int) -> None:
        if not number:
            return
        self._woken[id(future)] = weakref.ref(future), number
        if len(self._woken) > _MOST_WOKEN:
            # Somebody else than a task was woken by it, or nobody.
            self._woken.pop(next(iter(self._woken)), None)

    def _take_woken(self, future: object) -> int:
        reference, number = self._woken.pop(id(future), (None, 0))
        return number if reference is not None and reference() is future else 0


def _when_gone(tasks: dict[int, _Known], rows: Rows, rows_ended_ns: dict[int, int]) -> Callable[[Any], object]:
    """What is called when a task goes without having ended: it waited for what nobody holds any more."""

    def gone(known: _Known) -> None:
        # Before there can be another one at its address.
        if tasks.pop(known.key, None) is known:
            rows_ended_ns[known.row] = monotonic_ns()
            rows.give_back(known.row)

    return gone


def _copied(tasks: dict[int, _Known]) -> list[_Known]:
    """Of a dict that loops go on to change."""
    for _ in range(_TRIES):
        try:
            return list(tasks.values())  # one step of C, if the garbage collector does not come in between
        except RuntimeError:
            continue
    return []


def _awaited(task: asyncio.Task[Any]) -> str:
    """The innermost coroutine, in which the task waits."""
    step: Any = task.get_coro()
    name = ""
    for _ in range(_DEEPEST):
        name = getattr(step, "__qualname__", name)
        inner = getattr(step, "cr_await", None) or getattr(step, "gi_yieldfrom", None)
        if inner is None:
            break
        step = inner
    name = str(name)
    return name if len(name) <= MOST_CHARACTERS else short_name(name)
