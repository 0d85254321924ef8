"""Profiling switched on and off in a running process."""

from __future__ import annotations

import dataclasses
import gzip
import logging
import threading
from asyncio import Lock
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from profiling_middleware.config import Settings
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.profiler import Profiler

OWN_THREADS = ("profiling-encode", "profiling-timer", "profiling-upload")


@pytest.fixture
def off(tmp_path: Path, logger: logging.Logger) -> Settings:
    return Settings(types=("cpu", "block"), service_name="watcher", store=(tmp_path / "store").as_uri())


@pytest.fixture
def profiler(off: Settings) -> Iterator[Profiler]:
    profiler = Profiler(off)
    yield profiler
    profiler.stop()


def stored(settings: Settings) -> list[bytes]:
    root = settings.directory
    assert root is not None
    return [gzip.decompress(path.read_bytes()) for path in sorted(root.rglob("*.gz"))]


def own_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("profiling-")}


def wait_until_own_threads_are_gone(deadline: float) -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("profiling-"):
            thread.join(deadline)
    assert own_threads() == set()


def starts(caplog: pytest.LogCaptureFixture) -> int:
    """How often the log says what is captured from now on."""
    return len([message for message in caplog.messages if message.startswith("profiling: cpu, block every 5m for 2m")])


def test_enable_begins_what_the_settings_would_have_begun(off: Settings, caplog: pytest.LogCaptureFixture) -> None:
    traced = Profiler(dataclasses.replace(off, types=("cpu", "block", "trace")))

    traced.enable()

    assert (traced.enabled, traced.started, traced.status.enabled) == (True, True, True)
    assert traced.status.next_window is not None
    assert traced.status.running_captures == 3
    assert traced.collects("block")
    assert traced.keeps_flight
    assert own_threads().issuperset(OWN_THREADS)
    assert "profiling: cpu, block, trace every 5m for 2m" in caplog.text
    traced.stop()


def test_disable_ends_windows_as_partial_and_they_are_uploaded(profiler: Profiler, off: Settings) -> None:
    profiler.enable()
    profiler.disable()

    status = profiler.status
    assert (profiler.enabled, status.enabled, status.next_window, status.running_captures) == (False, False, None, 0)
    profiler.stop()
    windows = stored(off)
    assert len(windows) == 2
    assert all(b"partial: profiling was switched off" in window for window in windows)


def test_after_disable_nothing_is_left_but_a_profiler_that_is_off(off: Settings, deadline: float) -> None:
    plain_acquire = Lock.acquire
    profiler = Profiler(dataclasses.replace(off, types=("cpu", "block", "mutex", "trace")))
    profiler.enable()
    assert Lock.acquire is not plain_acquire

    profiler.disable()

    assert Lock.acquire is plain_acquire
    assert (profiler.collects("block"), profiler.keeps_flight, profiler.label_maker) == (False, False, None)
    assert profiler.requests.traced is False
    wait_until_own_threads_are_gone(deadline)
    assert profiler.status.engine.cpu_share is None
    profiler.stop()


def test_captures_on_demand_go_on(profiler: Profiler, deadline: float) -> None:
    profiler.enable()
    recording = profiler.record("cpu", 60)

    profiler.disable()
    assert profiler.status.running_captures == 1
    recording.end_early("seen")

    assert b"partial: seen" in gzip.decompress(recording.result.result(deadline).artifact.read())


def test_doing_it_twice_changes_nothing(profiler: Profiler, off: Settings, caplog: pytest.LogCaptureFixture) -> None:
    profiler.disable()
    profiler.enable()
    profiler.enable()
    profiler.disable()
    profiler.disable()
    profiler.stop()

    assert starts(caplog) == 1
    assert len(stored(off)) == 2


def test_it_can_be_switched_again_and_again_while_it_runs(
    profiler: Profiler, off: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    profiler.start()
    for _ in range(3):
        profiler.enable()
        assert profiler.status.running_captures == 2
        profiler.disable()
        assert profiler.status.running_captures == 0
    profiler.stop()

    assert starts(caplog) == 3
    assert len(stored(off)) == 6


def test_all_threads_may_switch_at_once(
    profiler: Profiler, off: Settings, caplog: pytest.LogCaptureFixture, deadline: float
) -> None:
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(profiler.enable) for _ in range(8)]:
            done.result(deadline)
        assert profiler.status.running_captures == 2
        for done in [pool.submit(profiler.disable) for _ in range(8)]:
            done.result(deadline)
    profiler.stop()

    assert starts(caplog) == 1
    assert len(stored(off)) == 2


def test_whoever_enables_meanwhile_returns_when_it_is_done(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    others: list[Future[None]] = []

    def beginning(_: Settings) -> None:
        others.append(pool.submit(profiler.enable))
        with pytest.raises(TimeoutError):
            others[0].result(0.2)

    monkeypatch.setattr("profiling_middleware.profiler.make_label_maker", beginning)
    with ThreadPoolExecutor(1) as pool:
        profiler.enable()
        others[0].result(deadline)

    assert len(others) == 1


def test_it_stays_on_over_stop_and_start(profiler: Profiler, off: Settings) -> None:
    profiler.enable()
    profiler.stop()
    assert profiler.status.next_window is None
    profiler.start()
    profiler.stop()

    assert profiler.enabled
    assert len(stored(off)) == 4


def test_it_stays_off_over_stop_and_start(off: Settings) -> None:
    profiler = Profiler(dataclasses.replace(off, enabled=True))
    profiler.start()
    profiler.disable()
    profiler.stop()
    with profiler:
        assert own_threads() == set()

    assert len(stored(off)) == 2


def test_what_is_switched_off_before_the_start_never_begins(off: Settings) -> None:
    profiler = Profiler(dataclasses.replace(off, enabled=True))
    profiler.disable()
    with profiler:
        assert own_threads() == set()
        assert profiler.status.next_window is None

    assert stored(off) == []


def test_without_a_named_store_it_is_the_default_one_while_profiling_is_on(
    logger: logging.Logger, store: Any, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    monkeypatch.setattr("profiling_middleware.parts.make_store", lambda settings: store)
    profiler = Profiler(Settings(types=("cpu",), service_name="watcher"))
    assert (profiler.uploads, profiler.status.store) == (False, "")

    profiler.enable()
    assert (profiler.uploads, profiler.status.store) == (True, store.place)
    key = profiler.record("cpu", 0.01).result.result(deadline).artifact.key
    together = profiler.record_on_host("cpu", 0.01).result.result(deadline).artifact.key
    profiler.disable()
    assert not profiler.uploads
    kept_out = profiler.record("cpu", 0.01).result.result(deadline).artifact.key
    profiler.stop()

    assert len(store.content) == 3
    assert {key, together} < store.content.keys()
    assert kept_out not in store.content


def test_the_default_store_is_what_the_settings_say(logger: logging.Logger) -> None:
    settings = Settings(environment="prod", types=("cpu",), service_name="watcher")
    asked: list[Settings] = []

    class UnwillingError(Exception):
        pass

    def make(settings: Settings) -> None:
        asked.append(settings)
        raise UnwillingError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("profiling_middleware.parts.make_store", make)
        profiler = Profiler(settings)
        with pytest.raises(UnwillingError):
            profiler.enable()

    assert [one.bucket_name for one in asked] == ["stl-debugging-prod"]
    assert not profiler.enabled


def test_where_another_profiler_runs_it_stays_off(profiler: Profiler, off: Settings) -> None:
    with Profiler(dataclasses.replace(off, sample_rate=50)):
        with pytest.raises(RuntimeError, match="another Profiler runs in this process"):
            profiler.enable()
        assert (profiler.enabled, profiler.label_maker) == (False, None)
        assert THIS_PROCESS.resident is not profiler


def test_the_last_failure_of_a_capture_is_in_the_status(
    profiler: Profiler, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    def broken(*_: object) -> None:
        raise OSError("a secret path")

    monkeypatch.setattr("profiling_middleware.captures.sampled.SampledCapture.begin", broken)
    for _ in range(2):
        assert profiler.record("cpu", 0.01).result.exception(deadline)

    (failure,) = profiler.status.last_failures
    assert (failure.what, failure.reason, failure.times) == ("capture", "cpu: OSError; the log says why", 2)


@pytest.mark.usefixtures("without_extension")
def test_the_status_says_which_engine_runs_and_why_not_another(profiler: Profiler, deadline: float) -> None:
    assert profiler.status.engine.name is None
    profiler.record("cpu", 0.01).result.result(deadline)

    engine = profiler.status.engine
    assert (engine.name, engine.interval, engine.max_share) == ("python", 0.01, 0.01)
    assert engine.why_not_native == "the C extension was not built for this Python and machine"
    assert engine.cpu_seconds > 0


def test_a_native_engine_needs_no_reason(profiler: Profiler, need_native: Callable[[], None], deadline: float) -> None:
    need_native()
    profiler.record("cpu", 0.01).result.result(deadline)

    assert (profiler.status.engine.name, profiler.status.engine.why_not_native) == ("native", None)
