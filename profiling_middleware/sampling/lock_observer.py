"""What is told of a measured lock to whoever observes it."""

from __future__ import annotations

import time
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from profiling_middleware.model import Stack

if TYPE_CHECKING:
    from profiling_middleware.sampling.lock_ways import Way


class _Clock:
    """The monotonic clock in nanoseconds, if a minus sign is put before it: one instruction, and no call."""

    __slots__ = ()
    __neg__ = time.monotonic_ns


CLOCK: Any = _Clock()
"""`-CLOCK` is the time."""


class Caller(NamedTuple):
    """A thread, by what it knows of itself."""

    ident: int
    native_id: int
    name: str | None
    """None while `threading` does not know it: one that is being born, or of somebody else's."""


class Wait:
    """One thread's wait for one lock. Whoever waits writes it, the profiler's timer reads it."""

    __slots__ = ("began_ns", "counted", "ended_ns", "is_inner", "log", "stack", "taken", "thread", "way", "work")

    thread: Caller
    stack: Stack
    work: object
    """The value of the variable that says whom it is done for."""
    way: Way | None
    """Of the lock; None for the end of a thread."""
    is_inner: bool
    """Whether a signal handler waits, while its thread waits already."""

    def __init__(self) -> None:
        self.log: object = None
        """Where it is noted; None for one that is not, which has nothing of the above."""
        self.began_ns = 1
        self.ended_ns = 0
        """0 until it is over."""
        self.taken = False
        """Whether it has ended with the lock."""
        self.counted = False
        """Whether it is in what its thread has waited."""


class Observer(Protocol):
    """Who measures. Neither raises anything but what signal handlers do."""

    def begins(self, wait: Wait, way: Way | None, frame: FrameType) -> None:
        """The thread that runs `frame` is about to wait."""

    def released(self, way: Way, at_ns: int, result: object) -> object:
        """The lock has been released by whoever called, `at_ns` on the monotonic clock; returns the result."""
