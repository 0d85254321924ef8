"""What a trace is made of besides stacks, as plain data. All times are nanoseconds of the monotonic clock.

Rows, in which requests and tasks are drawn, are numbered: two that overlap have different ones.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from profiling_middleware.model import Label


class RequestEvent(NamedTuple):
    """One request or websocket, told when it has ended."""

    row: int
    number: int
    """Of this request alone: steps, tasks and work done for it name it."""
    began_ns: int
    first_byte_ns: int
    """When the first part of the body was handed to the server; 0 when there was none."""
    ended_ns: int
    """0 when it goes on."""
    labels: tuple[Label, ...]
    """Those of its samples, as far as they are known."""
    status: int
    """0 when it was given none."""

    @property
    def method(self) -> str:
        """Empty when it is not known."""
        return self._label("method")

    @property
    def endpoint(self) -> str:
        """The route's template, or what is known instead; never the path, which may hold anything."""
        return self._label("endpoint") or "<no route>"

    def _label(self, key: str) -> str:
        return next((str(label.value) for label in self.labels if label.key == key), "")


class StepEvent(NamedTuple):
    """What an event loop did at one go: a task from one await to the next, or a callback."""

    tid: int
    """The native id of the loop's thread."""
    began_ns: int
    ended_ns: int
    name: str
    task: str
    """The task's name; empty for a callback."""
    request: int
    """For which request; 0 for none."""
    woken_by: int
    """The number of what woke the task, 0 when that is not known."""
    wakes: tuple[int, ...]
    """The numbers of what this step woke."""


class TaskEvent(NamedTuple):
    """The life of a task, told when it has ended."""

    row: int
    began_ns: int
    ended_ns: int
    """0 when it goes on."""
    name: str
    coroutine: str
    request: int


class AwaitEvent(NamedTuple):
    """A task that waited between two of its steps, or for its first one."""

    row: int
    began_ns: int
    ended_ns: int
    """0 when it goes on."""
    what: str
    """The coroutine that waited, or that it waited for its turn."""


class WorkEvent(NamedTuple):
    """What a thread of an executor did."""

    tid: int
    queued_ns: int
    began_ns: int
    ended_ns: int
    name: str
    request: int


class CollectionEvent(NamedTuple):
    """One run of the garbage collector, which holds up everybody."""

    tid: int
    began_ns: int
    ended_ns: int
    generation: int
    collected: int
    uncollectable: int


class CounterEvent(NamedTuple):
    """What a counter said. `counter` is a name in `COUNTERS`."""

    counter: str
    time_ns: int
    value: float


class Counter(NamedTuple):
    """How a counter is called and counted."""

    title: str
    unit: str
    """`ns`, `bytes`, `count`, or any other text to be shown."""


COUNTERS = {
    "cpu": Counter("CPU", "% of a core"),
    "rss": Counter("memory (resident)", "bytes"),
    "requests": Counter("requests in flight", "count"),
    "tasks": Counter("asyncio tasks", "count"),
    "threads": Counter("threads", "count"),
    "loop_lag": Counter("event loop lag", "ns"),
    "gil_wait": Counter("wait for the GIL", "ns"),
    "dropped": Counter("events dropped", "count"),
}

TraceEvent: TypeAlias = RequestEvent | StepEvent | TaskEvent | AwaitEvent | WorkEvent | CollectionEvent | CounterEvent

EVENT_TYPES: tuple[type[TraceEvent], ...] = (
    RequestEvent,
    StepEvent,
    TaskEvent,
    AwaitEvent,
    WorkEvent,
    CollectionEvent,
    CounterEvent,
)
