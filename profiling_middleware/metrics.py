"""The profiler's state as Prometheus metrics: `pip install 'profiling-middleware[metrics]'`.

In an application's own registry: `REGISTRY.register(ProfilerCollector())`. Nothing is counted for this beside what the
profiler counts anyway: its state is read when somebody scrapes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.profiler import Profiler
from profiling_middleware.status import EngineStatus, Status, WaitingStatus
from profiling_middleware.upload_counts import UploadCounts
from profiling_middleware.version import VERSION


class ProfilerCollector(Collector):
    """The metrics of one profiler, for any registry."""

    def __init__(self, profiler: Profiler | None = None) -> None:
        """Without a profiler it is the one that runs in this process at the time of a scrape, if any does."""
        self._profiler = profiler

    def collect(self) -> Iterable[Metric]:
        """The metrics now. Raises nothing: an application's other metrics are in the same answer."""
        try:
            resident = self._profiler or THIS_PROCESS.resident
            if isinstance(resident, Profiler):
                return list(_families(resident.status))
        except Exception:
            logging.getLogger("profiling_middleware").exception("profiling: the metrics could not be read")
        return []


def exposition(profiler: Profiler, accept: str) -> tuple[bytes, str]:
    """The metrics of `profiler` in a format that the header `Accept` allows, and that format's content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ProfilerCollector(profiler))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _families(status: Status) -> Iterator[Metric]:
    about = {"service": status.service, "profiler_instance": status.instance, "version": VERSION}
    engine = {"engine": status.engine.name or "none"}
    yield InfoMetricFamily("profiling", "Which profiler this is.", value=about | engine)
    yield _gauge("profiling_enabled", "Whether profiling is on.", float(status.enabled))
    if status.next_window is not None:
        yield _gauge("profiling_next_window_seconds", "Until the next window opens.", status.next_window)
    yield _counter("profiling_windows_missed", "Windows that were not taken.", status.missed_windows)
    yield _gauge("profiling_captures_running", "Captures being taken.", status.running_captures)
    yield _counter("profiling_captures_failed", "Captures that failed before an upload.", status.failed_captures)
    met = CounterMetricFamily("profiling_limits_met", "Requests for captures beyond a limit.", labels=["limit"])
    for limit, times in status.limits_met.items():
        met.add_metric([limit], times)
    yield met
    yield from _of_uploads(status.uploads)
    yield from _of_waiting(status.waiting)
    yield from _of_engine(status.engine)


def _of_uploads(counts: UploadCounts) -> Iterator[Metric]:
    yield _counter("profiling_uploads_taken", "Captures of this process that were to be stored.", counts.taken)
    yield _counter("profiling_uploads_adopted", "Captures of ended processes, taken over.", counts.adopted)
    yield _counter("profiling_uploads_stored", "Captures that are in the store.", counts.stored)
    yield _counter("profiling_uploads_stored_bytes", "Their size.", counts.stored_bytes)
    yield _counter("profiling_uploads_failed", "Puts that failed; each is tried again.", counts.failures)
    yield _counter("profiling_uploads_lost", "Captures that will never be in the store.", counts.dropped)
    if counts.last_stored:
        stored_at = counts.last_stored[0].stored_ns / 1e9
        yield _gauge("profiling_uploads_last_stored_timestamp_seconds", "When one was stored last.", stored_at)


def _of_waiting(waiting: WaitingStatus) -> Iterator[Metric]:
    yield _gauge("profiling_waiting_captures", "Captures that wait for the store.", waiting.captures)
    yield _gauge("profiling_waiting_bytes", "Their size.", waiting.size)
    yield _gauge("profiling_spool_captures", "Those of them that are on disk.", waiting.spooled)
    yield _gauge("profiling_spool_bytes", "Their size.", waiting.spooled_size)
    broken = float(waiting.spool_trouble is not None)
    yield _gauge("profiling_spool_broken", "Whether the spool cannot be used.", broken)


def _of_engine(engine: EngineStatus) -> Iterator[Metric]:
    yield _counter("profiling_own_cpu_seconds", "CPU time of sampling.", engine.cpu_seconds)
    share = engine.cpu_share or 0.0
    yield _gauge("profiling_own_cpu_ratio", "Share of a core that sampling took in the last minute.", share)
    yield _gauge("profiling_own_cpu_limit_ratio", "Share of a core that it may take.", engine.max_share)
    if engine.interval is not None:
        text = "CPU time between two samples of a thread."
        yield _gauge("profiling_sampling_interval_seconds", text, engine.interval)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
