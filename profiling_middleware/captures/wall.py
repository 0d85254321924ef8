"""Wall profile: where every thread spent its time, running or waiting."""

from __future__ import annotations

from profiling_middleware.captures.sampled import SampledCapture, StackSums
from profiling_middleware.captures.sources import Sources
from profiling_middleware.model import Sample, ValueType

_WALL = ValueType("wall", "nanoseconds")
# Who waits does not run away, and waking up is most of what a look costs. With 600 looks a share of one half is right
# within 2 percentage points (one standard deviation of a binomial), however long the capture is.
_LOOKS, _LEAST_LOOKS_A_SECOND, _MOST_LOOKS_A_SECOND = 600, 5.0, 20.0


def wall_capture(sources: Sources, seconds: float) -> SampledCapture:
    """Sample types samples/count (looks that the time is worth) and wall/nanoseconds."""
    looks, period_ns = looks_a_second(seconds), 1_000_000_000 // sources.engine.rate
    sums = StackSums(Sample._fields.index("wall_ns"), period_ns=period_ns, wait_looks=looks)
    return SampledCapture(sources.engine, sums, (ValueType("samples", "count"), _WALL), _WALL)


def looks_a_second(seconds: float) -> float:
    """How many looks a second at threads that wait a capture of so many seconds takes."""
    return min(_MOST_LOOKS_A_SECOND, max(_LEAST_LOOKS_A_SECOND, _LOOKS / seconds))
