"""Mutex profile: who made others wait for a lock."""

from __future__ import annotations

from profiling_middleware.captures.contention import ContentionCapture
from profiling_middleware.captures.sources import Sources


def mutex_capture(sources: Sources, seconds: float) -> ContentionCapture:
    """Sample types as Go's: contentions/count and delay/nanoseconds, on the stacks whose release ended the waits."""
    return ContentionCapture(sources, seconds, lambda collected: collected.mutex)
