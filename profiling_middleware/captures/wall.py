"""Wall profile: where every thread spent its time, running or waiting."""

from __future__ import annotations

from profiling_middleware.captures.sampled import SampledCapture, StackSums
from profiling_middleware.model import Sample, ValueType
from profiling_middleware.sampling.engine import Engine

_WALL = ValueType("wall", "nanoseconds")


def wall_capture(engine: Engine) -> SampledCapture:
    """Sample types samples/count (looks that the time is worth) and wall/nanoseconds."""
    sums = StackSums(Sample._fields.index("wall_ns"), period_ns=1_000_000_000 // engine.rate)
    return SampledCapture(engine, sums, (ValueType("samples", "count"), _WALL), _WALL)
