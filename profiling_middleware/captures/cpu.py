"""CPU profile: which functions the processor worked for."""

from __future__ import annotations

from profiling_middleware.captures.sampled import SampledCapture, StackSums
from profiling_middleware.captures.sources import Sources
from profiling_middleware.model import Sample, ValueType

_CPU = ValueType("cpu", "nanoseconds")


def cpu_capture(sources: Sources, seconds: float) -> SampledCapture:
    """Sample types as Go's: samples/count and cpu/nanoseconds, the latter from the threads' own clocks."""
    sums = StackSums(Sample._fields.index("cpu_ns"), period_ns=None)
    return SampledCapture(sources.engine, sums, (ValueType("samples", "count"), _CPU), _CPU)
