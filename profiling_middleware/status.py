"""What an operator wants to know of a profiler, at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from profiling_middleware.config import Settings
from profiling_middleware.last_failures import Failure, newest
from profiling_middleware.parts import Parts
from profiling_middleware.recorder import Recorder
from profiling_middleware.sampling import why_this_engine
from profiling_middleware.upload_counts import UploadCounts
from profiling_middleware.uploads import Uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """Which engine samples, and what that costs."""

    name: str | None = None
    """None until the first capture needs one."""
    why_not_native: str | None = None
    """None when it is, and as long as there is none."""
    interval: float | None = None
    """Seconds of CPU time between two samples of a thread; longer than was asked for where that would cost too much."""
    cpu_seconds: float = 0.0
    """CPU time of sampling since the process started; encoding and uploading are not in it."""
    cpu_share: float | None = None
    """Of one core, in the last minute; None while nothing is sampled, and in its first second."""
    max_share: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingStatus:
    """What is not in the store yet."""

    captures: int = 0
    size: int = 0
    """Bytes."""
    place: str = "memory"
    spooled: int = 0
    """How many of them are on disk, where they outlive this process."""
    spooled_size: int = 0
    spool_trouble: str | None = None
    """Why nothing can be put on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What an operator wants to know of a profiler. Never a secret."""

    service: str
    instance: str
    enabled: bool
    """Whether windows are taken, by the settings or because somebody has switched it since."""
    kinds: tuple[str, ...]
    interval: float
    duration: float
    """Of windows, from start to start and their length in seconds."""
    store: str
    """Where captures go; empty when they go nowhere."""
    next_window: float | None = None
    """Seconds until the next window opens; None when there is none."""
    missed_windows: int = 0
    running_captures: int = 0
    failed_captures: int = 0
    limits_met: Mapping[str, int] = field(default_factory=dict)
    """How often requests for captures have met which limit."""
    uploads: UploadCounts = field(default_factory=UploadCounts)
    waiting: WaitingStatus = WaitingStatus()
    last_failures: tuple[Failure, ...] = ()
    """The newest first."""
    engine: EngineStatus = EngineStatus()


def take_status(parts: Parts, *, enabled: bool) -> Status:
    """How the parts of one profiler are doing. From any thread; nothing is waited for."""
    settings, periodic, recorder, uploads = parts.settings, parts.periodic, parts.recorder, parts.uploads
    waiting = _waiting(uploads) if uploads is not None else WaitingStatus()
    has_store = replace(settings, enabled=enabled).uploads or waiting.captures > 0
    failures = uploads.failures.last if uploads is not None else ()
    return Status(
        service=settings.service_name,
        instance=parts.instance,
        enabled=enabled,
        kinds=parts.kinds,
        interval=settings.interval,
        duration=settings.duration,
        store=uploads.store.place if uploads is not None and has_store else "",
        next_window=periodic.next_window,
        missed_windows=periodic.missed,
        running_captures=recorder.running,
        failed_captures=recorder.failed + parts.pipeline.dropped,
        limits_met=parts.limits.met,
        uploads=replace(uploads.counts) if uploads is not None else UploadCounts(),
        waiting=waiting,
        last_failures=newest(failures, recorder.failures.last, parts.pipeline.failures.last),
        engine=_engine(settings, recorder),
    )


def _waiting(uploads: Uploads) -> WaitingStatus:
    captures, size = uploads.waiting
    spooled, spooled_size = uploads.spooled
    return WaitingStatus(
        captures=captures,
        size=size,
        place=uploads.waiting_place,
        spooled=spooled,
        spooled_size=spooled_size,
        spool_trouble=uploads.spool_trouble,
    )


def _engine(settings: Settings, recorder: Recorder) -> EngineStatus:
    name, rate = recorder.engine_in_use or (None, None)
    return EngineStatus(
        name=name,
        why_not_native=why_this_engine(settings, name) if name is not None else None,
        interval=1 / rate if rate else None,
        cpu_seconds=recorder.cost.total_ns / 1e9,
        cpu_share=recorder.cost.share,
        max_share=settings.max_overhead,
    )
