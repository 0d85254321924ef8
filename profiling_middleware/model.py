"""What was recorded, as plain data: it knows neither who took it nor how it is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Literal, NamedTuple

from profiling_middleware.private_file import PrivateFile
from profiling_middleware.short_names import short_name

Trigger = Literal["periodic", "on demand", "slow request", "stall"]


class Frame(NamedTuple):
    """One function on a stack: where it is defined and the line it was at (0 when there is none)."""

    function: str
    """Module and qualified name, such as `shop.cart.Cart.total`."""
    file: str
    line: int
    start_line: int


class Stack:
    """Frames, leaf first. Compared by identity: whoever takes stacks makes equal ones the same object."""

    __slots__ = ("frames",)

    def __init__(self, frames: tuple[Frame, ...]) -> None:
        self.frames = frames


class Reason(IntEnum):
    """Why a thread does not run, as far as the system tells: the numbers of csrc/reason.h."""

    UNKNOWN = 0
    LOCK = 1
    GIL = 2
    NETWORK = 3
    POLL = 4
    """For one of several descriptors."""
    EVENTS = 5
    """Of an event loop."""
    ACCEPT = 6
    SLEEP = 7
    FILE = 8
    CHILD = 9
    """A process."""
    OTHER = 10
    MEASURED = 11
    """A lock whose waits are told as contentions."""
    AWAIT = 12
    """A task that waits for another one, a timer, a connection."""
    EVENT_LOOP = 13
    """Everyone whom a loop serves waits for this callback."""


class Thread:
    """A thread that was seen. Compared by identity, because the system reuses both of its numbers."""

    __slots__ = ("name", "native_id")

    def __init__(self, name: str, native_id: int) -> None:
        self.name = short_name(name)
        self.native_id = native_id


class ValueType(NamedTuple):
    type: str
    unit: str


class Label(NamedTuple):
    """Either text, or a number with its unit."""

    key: str
    value: str | int
    unit: str = ""


class Sample(NamedTuple):
    """What an engine saw of one thread between two looks."""

    time_ns: int
    """When, on the monotonic clock: the end of the time that the sample covers."""
    thread: Thread
    stack: Stack
    cpu_ns: int
    """CPU time the thread spent on this stack; 0 for a wait."""
    wall_ns: int
    """Time that passed meanwhile; 0 where only CPU time is being put in its place."""
    labels: tuple[Label, ...] = ()
    """Whom it was done for, where that is known."""
    lock_ns: int = 0
    """The part of the wall time that is told as contentions, too."""
    reason: Reason = Reason.UNKNOWN
    """Why it waited."""
    moving: bool = False
    """It waited between two pieces of work: where it was is not known, and `stack` is where it works."""


class Contention(NamedTuple):
    """Waits for locks that were measured by themselves: on a stack that waited, or on one whose release ended waits."""

    thread: Thread
    stack: Stack
    waiter: Stack | None
    """Of a release: where one of those was that waited; None for a wait."""
    times: float
    """How many there were."""
    delay_ns: float
    """Of all waits together. Both are more than was seen where only some are recorded."""
    labels: tuple[Label, ...] = ()
    reason: Reason = Reason.LOCK
    time_ns: int = 0
    """When the wait ended, on the monotonic clock; 0 where several are told as one."""
    holder: Thread | None = None
    """Whose release ended it, where that is known."""


class ProfileSample(NamedTuple):
    stack: Stack
    labels: tuple[Label, ...]
    values: tuple[int, ...]
    """One a sample type, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureInfo:
    """Which capture this is: what its key, its comments and its log lines are made of."""

    kind: str
    service: str
    instance: str
    """The process that took it: host, process id and some randomness."""
    capture_id: str
    started_ns: int
    """UTC start of the window, nanoseconds since 1970; the same for all kinds of one window."""
    trigger: Trigger
    partial: str | None = None
    """Why it ended before its time, when it did."""

    @property
    def started(self) -> datetime:
        return datetime.fromtimestamp(self.started_ns // 1_000_000_000, tz=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A finished capture, ready to be encoded."""

    info: CaptureInfo
    sample_types: tuple[ValueType, ...]
    """Count first; the last one is the default."""
    period_type: ValueType
    period: int
    duration_ns: int
    samples: Sequence[ProfileSample]
    comments: tuple[str, ...] = ()
    """Lines for people: the engine, what the capture cost, what it dropped and what it cannot know."""


Body = bytes | PrivateFile
"""What goes to a store: in memory, or in a file when it is big."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A finished capture that was encoded while it was taken."""

    info: CaptureInfo
    body: Future[Body]
    """Its gzipped bytes, once the last of them are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What goes to a store: the gzipped bytes of one capture under the key of its window."""

    info: CaptureInfo
    key: str
    """Where it should go."""
    own_key: str
    """Where it goes when `key` is taken: nobody else has this one."""
    body: Body = field(repr=False)

    def read(self) -> bytes:
        """All of its bytes."""
        return self.body if isinstance(self.body, bytes) else self.body.read()

    def chunks(self) -> Iterable[bytes]:
        """Likewise, little by little."""
        return (self.body,) if isinstance(self.body, bytes) else self.body.chunks()
