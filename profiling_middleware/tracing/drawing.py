"""From what happened to what is drawn: which track, which name, which colour, and which arrows."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

from profiling_middleware.encoders.trace_items import Count, Instant, Slice, StackSample, TraceItem, Value
from profiling_middleware.model import Contention, Frame, Stack
from profiling_middleware.trace_events import (
    AwaitEvent,
    CollectionEvent,
    RequestEvent,
    StepEvent,
    TaskEvent,
    TraceEvent,
    WorkEvent,
)
from profiling_middleware.tracing.rows import MOST_ROWS
from profiling_middleware.tracing.seen import SampleFields
from profiling_middleware.tracing.stalls import Stall
from profiling_middleware.tracing.states import IDLE, RUNS, ThreadState
from profiling_middleware.uncollected import uncollected
from profiling_middleware.waits import WaitNames

# The body of a response that is sent at one go is not worth a slice.
_LEAST_SENDING_NS = 1_000_000
_LEAST_STATE_NS = 1_000_000
# What is known of a short run is one sample of 10 ms, which is drawn anyhow.
_LEAST_RUN_NS = 15_000_000
# Less than a trace can tell apart: it would end after the state that follows has begun, maybe in another chunk.
_LEAST_RUN_NS_IN_FULL = 1_000
_MOST_FRAMES = 60
# Some kilobytes each.
_MOST_PLACES = 500

Arguments = tuple[tuple[str, Value], ...]


class Drawing:
    """Keeps what has to be known from one thing to the next. A thread's `tid` is its native id."""

    def __init__(self) -> None:
        self._names = WaitNames()
        self._places: dict[Stack, Arguments] = {}
        """Where somebody waited, for those who wait there, too."""
        self._lock_rows: list[tuple[int, int]] = []
        """A heap: until when each row is taken, and its number."""
        self.dropped = 0
        """What found no row since the process started."""

    def forget(self) -> None:
        """Lets go of stacks."""
        self._names.clear()
        self._places.clear()
        self._lock_rows.clear()

    def event(self, event: TraceEvent) -> tuple[TraceItem, ...]:
        """What is drawn of one event. Stalls are drawn by `stall`."""
        if isinstance(event, RequestEvent):
            return _request(event)
        if isinstance(event, StepEvent):
            return (_step(event),)
        if isinstance(event, AwaitEvent):
            return (Slice(("task", event.row), event.began_ns, event.ended_ns, f"waits: {event.what}", "await"),)
        if isinstance(event, TaskEvent):
            return (_task(event),)
        if isinstance(event, WorkEvent):
            return (self._work(event),)
        if isinstance(event, CollectionEvent):
            return (self._collection(event),)
        return (Count(("counter", event.counter), event.time_ns, event.value),)

    def stall(self, stall: Stall) -> Slice:
        """A step that held up its loop, with the stack that did it."""
        step = _step(stall.step)
        arguments = (*step.arguments, *self._where(stall.stack))
        return step._replace(name=f"stall: {step.name}", category="stall", arguments=arguments)

    def lock_wait(self, wait: Contention) -> Slice | None:
        """A thread that waited for a lock; None if it only waited for work to come."""
        # One that had ended before it was seen has no number to be drawn by.
        if not wait.thread.native_id or self._names.kind(wait.reason, wait.stack) == "idle":
            return None
        arguments = self._where(wait.stack)
        if wait.holder is not None:
            arguments = (*arguments, ("released by", wait.holder.name))
        began = wait.time_ns - round(wait.delay_ns)
        return Slice(("thread", wait.thread.native_id), began, wait.time_ns, "waits for a lock", "lock", arguments)

    def task_lock_wait(self, wait: Contention) -> Slice | None:
        """A task that waited for a lock of asyncio's, likewise; None, too, where too many overlap."""
        if self._names.kind(wait.reason, wait.stack) == "idle":
            return None
        began = wait.time_ns - round(wait.delay_ns)
        rows = self._lock_rows
        if rows and rows[0][0] <= began:
            row = heapq.heappop(rows)[1]
        elif len(rows) < MOST_ROWS:
            row = len(rows)
        else:
            self.dropped += 1
            return None
        heapq.heappush(rows, (wait.time_ns, row))
        return Slice(("lock", row), began, wait.time_ns, "waits for a lock", "lock", self._where(wait.stack))

    def state(self, state: ThreadState, *, full: bool) -> Slice | None:
        """A thread that runs or waits. If not `full`, one that has nothing to do is left out, and short work."""
        tid, began_ns, ended_ns, name, frame = state
        least = _LEAST_STATE_NS
        if name == RUNS:
            least = _LEAST_RUN_NS_IN_FULL if full else _LEAST_RUN_NS
        if ended_ns - began_ns < least or (name == IDLE and not full):
            return None
        arguments = _frame(frame) if frame is not None and name != IDLE else ()
        return Slice(("state", tid), began_ns, ended_ns, name, "thread", arguments)

    @staticmethod
    def samples(samples: Iterable[SampleFields]) -> Iterator[StackSample]:
        """Where threads worked."""
        for time_ns, thread, stack, cpu_ns, *_ in samples:
            if cpu_ns > 0 and thread.native_id and stack.frames:
                yield StackSample(thread.native_id, time_ns, stack)

    @staticmethod
    def about(time_ns: int, arguments: Sequence[tuple[str, Value]]) -> Instant:
        """What this trace is."""
        return Instant(("process",), time_ns, "profiling_middleware trace", "about", arguments)

    def _where(self, stack: Stack | None) -> Arguments:
        if stack is None or not stack.frames:
            return ()
        known = self._places.get(stack)
        if known is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            lines = [f"{frame.function} ({frame.file}:{frame.line})" for frame in stack.frames[:_MOST_FRAMES]]
            known = self._places[stack] = uncollected((*_frame(stack.frames[0]), ("stack", "\n".join(lines))))
        return known

    def _work(self, event: WorkEvent) -> Slice:
        waited = (("queued_us", (event.began_ns - event.queued_ns) // 1_000),)
        track = ("thread", event.tid)
        flows = _flows(event.request)
        return Slice(track, event.began_ns, event.ended_ns, event.name, "executor", (), flows, (), waited)

    def _collection(self, event: CollectionEvent) -> Slice:
        arguments: Arguments = (("generation", event.generation), ("collected", event.collected))
        if event.uncollectable:
            arguments = (*arguments, ("uncollectable", event.uncollectable))
        track = ("thread", event.tid)
        return Slice(track, event.began_ns, event.ended_ns, "garbage collection", "gc", arguments)


def _request(event: RequestEvent) -> tuple[Slice, ...]:
    row, number, began_ns, first_byte_ns, ended_ns, _, status = event
    method, endpoint = event.method, event.endpoint
    track = ("request", row)
    arguments: Arguments = (("route", endpoint), ("status", status))
    if method:
        arguments = (*arguments, ("method", method))
    measures = (("first_byte_us", (first_byte_ns - began_ns) // 1_000),) if first_byte_ns else ()
    name = f"{method} {endpoint}".lstrip()
    whole = Slice(track, began_ns, ended_ns, name, "request", arguments, _flows(number), (), measures)
    if first_byte_ns and ended_ns - first_byte_ns >= _LEAST_SENDING_NS:
        return whole, Slice(track, first_byte_ns, ended_ns, "sends the rest", "response")
    return (whole,)


def _task(event: TaskEvent) -> Slice:
    name = (("task", event.name),)
    track, flows = ("task", event.row), _flows(event.request)
    return Slice(track, event.began_ns, event.ended_ns, event.coroutine, "task", name, flows)


def _step(event: StepEvent) -> Slice:
    arguments: Arguments = (("task", event.task),) if event.task else ()
    flows = (*_flows(event.request), *(number << 1 | 1 for number in event.wakes))
    ends = (event.woken_by << 1 | 1,) if event.woken_by else ()
    return Slice(("loop", event.tid), event.began_ns, event.ended_ns, event.name, "step", arguments, flows, ends)


def _flows(request: int) -> tuple[int, ...]:
    """What a request, its tasks, their steps and the work done for it have in common."""
    return (request << 1 & 0xFFFF_FFFF,) if request else ()


def _frame(frame: Frame) -> Arguments:
    return ("function", frame.function), ("file", frame.file), ("line", frame.line)
