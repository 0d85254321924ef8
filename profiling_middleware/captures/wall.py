"""Wall profile: where every thread spent its time, running or waiting."""

from __future__ import annotations

from profiling_middleware.captures.sampled import SampledCapture, StackSums
from profiling_middleware.model import Sample, ValueType
from profiling_middleware.sampling.engine import Engine

_WALL = ValueType("wall", "nanoseconds")
# Who waits does not run away, and waking up is most of what a look costs. With 1,000 looks a share of one half is right
# within 2 percentage points (one standard deviation of a binomial), however long the capture is.
_LOOKS, _LEAST_LOOKS_A_SECOND, _MOST_LOOKS_A_SECOND = 1_000, 5.0, 20.0


def wall_capture(engine: Engine, seconds: float) -> SampledCapture:
    """Sample types samples/count (looks that the time is worth) and wall/nanoseconds."""
    looks = min(_MOST_LOOKS_A_SECOND, max(_LEAST_LOOKS_A_SECOND, _LOOKS / seconds))
    sums = StackSums(Sample._fields.index("wall_ns"), period_ns=1_000_000_000 // engine.rate, wait_looks=looks)
    return SampledCapture(engine, sums, (ValueType("samples", "count"), _WALL), _WALL)
