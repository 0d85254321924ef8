"""From what happened to what is drawn: which track, which name, which colour, and which arrows."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

from profiling_middleware.encoders.perfetto import Count, Instant, Slice, StackSample, TraceItem, Value
from profiling_middleware.model import Contention, Frame, Sample, Stack
from profiling_middleware.trace_events import (
    AwaitEvent,
    CollectionEvent,
    CounterEvent,
    RequestEvent,
    StepEvent,
    TaskEvent,
    TraceEvent,
    WorkEvent,
)
from profiling_middleware.tracing.stalls import Stall
from profiling_middleware.tracing.states import RUNS, ThreadState
from profiling_middleware.waits import WaitNames

# The body of a response that is sent at one go is not worth a slice.
_LEAST_SENDING_NS = 1_000_000
_LEAST_STATE_NS = 1_000_000
# Less than a trace can tell apart: it would end after the state that follows has begun, maybe in another chunk.
_LEAST_RUN_NS = 1_000
_MOST_FRAMES = 60

Arguments = list[tuple[str, Value]]


class Drawing:
    """Knows the threads. `tid` is a thread's native id, `ident` what `threading` calls it by."""

    def __init__(self) -> None:
        self._names = WaitNames()
        self._tids: dict[int, int] = {}
        self._lock_rows: list[tuple[int, int]] = []
        """A heap: until when each row is taken, and its number."""

    def learn_thread(self, ident: int, tid: int) -> None:
        """From now on events of thread `ident` are those of `tid`."""
        self._tids[ident] = tid

    def tid(self, ident: int) -> int:
        """Of a thread; a number that no thread has when it had ended before anybody saw it."""
        return self._tids.get(ident, 0) or 1 << 30 | ident >> 12 & 0xFFFFF

    def event(self, event: TraceEvent) -> Iterator[TraceItem]:
        """What is drawn of one event. Stalls are drawn by `stall`."""
        if isinstance(event, RequestEvent):
            yield from _request(event)
        elif isinstance(event, StepEvent):
            yield _step(event, self.tid(event.ident))
        elif isinstance(event, AwaitEvent):
            yield Slice(("task", event.row), event.began_ns, event.ended_ns, f"waits: {event.what}", "await")
        elif isinstance(event, TaskEvent):
            name = [("task", event.name)]
            yield Slice(
                ("task", event.row),
                event.began_ns,
                event.ended_ns,
                event.coroutine,
                "task",
                name,
                _flows(event.request),
            )
        elif isinstance(event, WorkEvent):
            yield self._work(event)
        elif isinstance(event, CollectionEvent):
            yield self._collection(event)
        elif isinstance(event, CounterEvent):
            yield Count(("counter", event.counter), event.time_ns, event.value)

    def stall(self, stall: Stall) -> Slice:
        """A step that held up its loop, with the stack that did it."""
        step = _step(stall.step, stall.tid)
        arguments = [*step.arguments, *_where(stall.stack)]
        return step._replace(name=f"stall: {step.name}", category="stall", arguments=arguments)

    def lock_wait(self, wait: Contention) -> Iterator[Slice]:
        """A thread that waited for a lock, and not only for work to come."""
        # One that had ended before it was seen has no number to be drawn by.
        if not wait.thread.native_id or self._names.kind(wait.reason, wait.stack) == "idle":
            return
        arguments = _where(wait.stack)
        if wait.holder is not None:
            arguments.append(("released by", wait.holder.name))
        began = wait.time_ns - round(wait.delay_ns)
        yield Slice(("thread", wait.thread.native_id), began, wait.time_ns, "waits for a lock", "lock", arguments)

    def task_lock_wait(self, wait: Contention) -> Iterator[Slice]:
        """A task that waited for a lock of asyncio's, likewise."""
        if self._names.kind(wait.reason, wait.stack) == "idle":
            return
        began = wait.time_ns - round(wait.delay_ns)
        rows = self._lock_rows
        row = heapq.heappop(rows)[1] if rows and rows[0][0] <= began else len(rows)
        heapq.heappush(rows, (wait.time_ns, row))
        yield Slice(("lock", row), began, wait.time_ns, "waits for a lock", "lock", _where(wait.stack))

    def state(self, state: ThreadState, *, full: bool) -> Iterator[Slice]:
        """A thread that runs or waits. If not `full`, one that has nothing to do is left out, and short work."""
        least = _LEAST_RUN_NS if full and state.state == RUNS else _LEAST_STATE_NS
        if state.ended_ns - state.began_ns < least or (state.state == "idle" and not full):
            return
        arguments = _frame(state.frame) if state.frame is not None and state.state != "idle" else []
        yield Slice(("state", state.tid), state.began_ns, state.ended_ns, state.state, "thread", arguments)

    @staticmethod
    def samples(samples: Iterable[Sample]) -> Iterator[StackSample]:
        """Where threads worked."""
        for sample in samples:
            if sample.cpu_ns > 0 and sample.thread.native_id and sample.stack.frames:
                yield StackSample(sample.thread.native_id, sample.time_ns, sample.stack)

    @staticmethod
    def about(time_ns: int, arguments: Sequence[tuple[str, Value]]) -> Instant:
        """What this trace is."""
        return Instant(("process",), time_ns, "profiling_middleware trace", "about", arguments)

    def _work(self, event: WorkEvent) -> Slice:
        waited = [("queued_us", (event.began_ns - event.queued_ns) // 1_000)]
        track = ("thread", self.tid(event.ident))
        flows = _flows(event.request)
        return Slice(track, event.began_ns, event.ended_ns, event.name, "executor", (), flows, (), waited)

    def _collection(self, event: CollectionEvent) -> Slice:
        arguments = [("generation", event.generation), ("collected", event.collected)]
        if event.uncollectable:
            arguments.append(("uncollectable", event.uncollectable))
        track = ("thread", self.tid(event.ident))
        return Slice(track, event.began_ns, event.ended_ns, "garbage collection", "gc", arguments)


def _request(event: RequestEvent) -> Iterator[Slice]:
    track = ("request", event.row)
    arguments: Arguments = [("route", event.endpoint), ("status", event.status)]
    if event.method:
        arguments.append(("method", event.method))
    measures = [("first_byte_us", (event.first_byte_ns - event.began_ns) // 1_000)] if event.first_byte_ns else []
    name = f"{event.method} {event.endpoint}".lstrip()
    yield Slice(track, event.began_ns, event.ended_ns, name, "request", arguments, _flows(event.number), (), measures)
    if event.first_byte_ns and event.ended_ns - event.first_byte_ns >= _LEAST_SENDING_NS:
        yield Slice(track, event.first_byte_ns, event.ended_ns, "sends the rest", "response")


def _step(event: StepEvent, tid: int) -> Slice:
    arguments: Arguments = [("task", event.task)] if event.task else []
    flows = (*_flows(event.request), *(number << 1 | 1 for number in event.wakes))
    ends = (event.woken_by << 1 | 1,) if event.woken_by else ()
    return Slice(("loop", tid), event.began_ns, event.ended_ns, event.name, "step", arguments, flows, ends)


def _flows(request: int) -> tuple[int, ...]:
    """What a request, its tasks, their steps and the work done for it have in common."""
    return (request << 1 & 0xFFFF_FFFF,) if request else ()


def _where(stack: Stack | None) -> Arguments:
    if stack is None or not stack.frames:
        return []
    lines = [f"{frame.function} ({frame.file}:{frame.line})" for frame in stack.frames[:_MOST_FRAMES]]
    return [*_frame(stack.frames[0]), ("stack", "\n".join(lines))]


def _frame(frame: Frame) -> Arguments:
    return [("function", frame.function), ("file", frame.file), ("line", frame.line)]
