"""Block profile: where threads spent time waiting, and why."""

from __future__ import annotations

from profiling_middleware.captures.contention import ContentionCapture
from profiling_middleware.captures.sources import Sources


def block_capture(sources: Sources, seconds: float) -> ContentionCapture:
    """Sample types as Go's: contentions/count and delay/nanoseconds, on the stacks that waited."""
    return ContentionCapture(sources, seconds, lambda collected: collected.block)
