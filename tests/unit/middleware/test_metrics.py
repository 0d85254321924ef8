"""The state as Prometheus metrics."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from profiling_middleware.config import Settings
from profiling_middleware.metrics import ProfilerCollector, exposition
from profiling_middleware.middleware.admin import Admin
from profiling_middleware.middleware.messages import AdminRequest, AdminResponse
from profiling_middleware.profiler import Profiler
from profiling_middleware.status import Status

MakeStatus = Callable[..., Status]
MakeRequest = Callable[..., AdminRequest]


@pytest.fixture
def settings(tmp_path: Path, logger: logging.Logger) -> Settings:
    return Settings(environment="dev", types=("cpu",), service_name="watcher", store=(tmp_path / "store").as_uri())


@pytest.fixture
def profiler(settings: Settings) -> Iterator[Profiler]:
    profiler = Profiler(settings)
    yield profiler
    profiler.stop()


def values(text: bytes) -> dict[str, float]:
    """The samples of an exposition that have no labels."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.labels
    }


@pytest.fixture
def told(profiler: Profiler, make_status: MakeStatus, monkeypatch: pytest.MonkeyPatch) -> Profiler:
    """A profiler that has something to tell everywhere."""
    status = make_status()
    monkeypatch.setattr(Profiler, "status", property(lambda _: status))
    return profiler


def test_every_metric_and_its_value(told: Profiler) -> None:
    text, content_type = exposition(told, "")

    assert content_type.startswith("text/plain; version=")
    assert values(text) == {
        "profiling_enabled": 1.0,
        "profiling_next_window_seconds": 41.6,
        "profiling_windows_missed_total": 6.0,
        "profiling_captures_running": 2.0,
        "profiling_captures_failed_total": 5.0,
        "profiling_uploads_taken_total": 7.0,
        "profiling_uploads_adopted_total": 1.0,
        "profiling_uploads_stored_total": 3.0,
        "profiling_uploads_stored_bytes_total": 49_357.0,
        "profiling_uploads_failed_total": 2.0,
        "profiling_uploads_lost_total": 1.0,
        "profiling_uploads_last_stored_timestamp_seconds": pytest.approx(1_769_441_400.25),
        "profiling_waiting_captures": 4.0,
        "profiling_waiting_bytes": 2048.0,
        "profiling_spool_captures": 3.0,
        "profiling_spool_bytes": 1024.0,
        "profiling_spool_broken": 1.0,
        "profiling_own_cpu_seconds_total": 1.25,
        "profiling_own_cpu_ratio": 0.004,
        "profiling_own_cpu_limit_ratio": 0.01,
        "profiling_sampling_interval_seconds": 0.02,
    }
    assert b'engine="python"' in text
    assert b'profiler_instance="web-1-7-0a1b2c3d",service="checkout"' in text


def test_a_scraper_gets_openmetrics_if_it_wants_that(told: Profiler) -> None:
    text, content_type = exposition(told, "application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


def test_the_state_is_read_when_somebody_scrapes(profiler: Profiler) -> None:
    registry = CollectorRegistry()
    registry.register(ProfilerCollector(profiler))
    assert values(generate_latest(registry))["profiling_enabled"] == 0

    profiler.enable()

    assert values(generate_latest(registry))["profiling_enabled"] == 1
    assert values(generate_latest(registry))["profiling_captures_running"] == 1


def test_without_a_profiler_it_is_the_one_that_runs_here(settings: Settings) -> None:
    registry = CollectorRegistry()
    registry.register(ProfilerCollector())
    assert generate_latest(registry) == b""

    with Profiler(settings):
        assert values(generate_latest(registry))["profiling_enabled"] == 0


def test_what_fails_leaves_an_applications_other_metrics_alone(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> Status:
        raise ZeroDivisionError

    registry = CollectorRegistry()
    registry.register(ProfilerCollector(profiler))
    monkeypatch.setattr(Profiler, "status", property(broken))

    assert generate_latest(registry) == b""
    assert "the metrics could not be read" in caplog.text


# -- the route --------------------------------------------------------------------------------------------------------


def scrape(settings: Settings, profiler: Profiler, request: AdminRequest, deadline: float) -> AdminResponse:
    answer = Admin(settings, lambda: profiler).answer(request)
    assert not isinstance(answer, AdminResponse)  # the library takes a while to load: not on an event loop
    answer.result.result(deadline)
    return answer.response()


def test_the_route_answers_with_this_profilers_metrics_only(
    settings: Settings, profiler: Profiler, make_request: MakeRequest, deadline: float
) -> None:
    before = {family.name for family in REGISTRY.collect()}

    answer = scrape(settings, profiler, make_request(path="/debug/pprof/metrics"), deadline)

    assert (answer.status, answer.media_type.partition(";")[0]) == (200, "text/plain")
    assert isinstance(answer.body, bytes)
    families = list(text_string_to_metric_families(answer.body.decode()))
    assert all(family.name.startswith("profiling") for family in families)
    assert {family.name for family in REGISTRY.collect()} == before


def test_the_route_looks_at_what_the_scraper_accepts(
    settings: Settings, profiler: Profiler, make_request: MakeRequest, deadline: float
) -> None:
    wanted = ("accept", "application/openmetrics-text; version=1.0.0")

    answer = scrape(
        settings, profiler, make_request(wanted, path="/debug/pprof/metrics", without=("accept",)), deadline
    )

    assert answer.media_type.startswith("application/openmetrics-text")


def test_without_the_library_the_route_says_what_to_install(
    settings: Settings, profiler: Profiler, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "profiling_middleware.metrics")

    answer = scrape(settings, profiler, make_request(path="/debug/pprof/metrics"), deadline)

    assert answer.status == 501
    assert answer.body == b"profiling: metrics need prometheus_client: pip install prometheus_client\n"
