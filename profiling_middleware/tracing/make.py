"""Puts the parts of a tracer together."""

from __future__ import annotations

import os
from collections.abc import Callable

from profiling_middleware.config import Settings
from profiling_middleware.failures import Failures
from profiling_middleware.lane import Lane
from profiling_middleware.timer import Timeline
from profiling_middleware.tracing.executors import ExecutorWork
from profiling_middleware.tracing.garbage import GarbageCollections
from profiling_middleware.tracing.requests import RequestSpans
from profiling_middleware.tracing.sinks import TraceFile
from profiling_middleware.tracing.steps import LoopSteps, StepHooks
from profiling_middleware.tracing.tracer import Tracer
from profiling_middleware.tracing.writer import TraceWriter


def make_tracer(
    settings: Settings,
    *,
    timeline: Timeline,
    lane: Lane,
    requests: RequestSpans,
    find_hooks: Callable[[], StepHooks | None],
    on_slow: Callable[[str], object],
    failures: Failures | None = None,
) -> Tracer:
    """A new one, at rest. `on_slow` is told what took longer than PROFILE_SLOW_REQUEST; from any thread.

    `failures` is told what fails in the service's own threads.
    """
    logger = settings.logger
    slow_ns = int(settings.slow_request * 1e9) if settings.slow_request is not None else 0
    return Tracer(
        timeline=timeline,
        lane=lane,
        writer=TraceWriter(os.getpid(), settings.service_name, slow_ns, on_slow),
        requests=requests,
        sources=(LoopSteps(find_hooks, failures), ExecutorWork(failures), GarbageCollections()),
        new_file=lambda: TraceFile(settings.spool_dir, settings.spool_max_bytes, logger),
    )
