"""What a trace consists of, before it is encoded. Times in nanoseconds of the monotonic clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from profiling_middleware.encoders.tracks import Track
from profiling_middleware.model import Stack

Value = int | str


class Slice(NamedTuple):
    """Something that lasted."""

    track: Track
    began_ns: int
    ended_ns: int
    """0 for what goes on."""
    name: str
    category: str
    arguments: Sequence[tuple[str, Value]] = ()
    flows: tuple[int, ...] = ()
    """Numbers below 2^32 that slices have in common which belong together: arrows lead from each to the next."""
    last_flows: tuple[int, ...] = ()
    """Of arrows that end here."""
    measures: Sequence[tuple[str, int]] = ()
    """Further arguments: those that are different each time."""


class Instant(NamedTuple):
    """Something that happened at one moment."""

    track: Track
    time_ns: int
    name: str
    category: str
    arguments: Sequence[tuple[str, Value]] = ()


class Count(NamedTuple):
    """What a counter said."""

    track: Track
    time_ns: int
    value: float


class StackSample(NamedTuple):
    """Where a thread worked."""

    tid: int
    time_ns: int
    stack: Stack


TraceItem = Slice | Instant | Count | StackSample
