"""The profiler of a process."""

from __future__ import annotations

import dataclasses
import gzip
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from profiling_middleware.config import Settings, SettingsError
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.profiler import Profiler
from profiling_middleware.recording import CaptureCancelled, TooManyCaptures


@pytest.fixture
def settings(tmp_path: Path, logger: logging.Logger) -> Settings:
    return Settings(enabled=True, types=("cpu", "wall"), service_name="watcher", store=(tmp_path / "store").as_uri())


@pytest.fixture
def off(settings: Settings) -> Settings:
    return dataclasses.replace(settings, enabled=False, store="s3")


@pytest.fixture
def stopped_afterwards() -> Iterator[list[Profiler]]:
    profilers: list[Profiler] = []
    yield profilers
    for profiler in profilers:
        profiler.stop()


def stored(settings: Settings) -> dict[str, bytes]:
    root = settings.directory
    assert root is not None
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.gz")}


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("profiling-")}


def the_work_of_the_service(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))


class Service:
    """A thread that works until it is told to stop."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service")

    def _run(self) -> None:
        while not self._stop.is_set():
            the_work_of_the_service(0.01)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)


# -- on demand --------------------------------------------------------------------------------------------------------


def test_a_capture_is_returned_and_stored(settings: Settings) -> None:
    off = dataclasses.replace(settings, enabled=False)
    profiler = Profiler(off)
    with Service():
        artifact = profiler.capture("cpu", 0.2)
    profiler.stop()

    content = gzip.decompress(artifact.body)
    assert b"the_work_of_the_service" in content
    assert b"(cpu, on demand, " in content
    assert stored(off) == {artifact.key: artifact.body}
    assert re.fullmatch(
        rf"profiles/watcher/cpu/\d{{4}}-\d\d-\d\d/\d\d-\d\d-\d\d_.*-{os.getpid()}-.*\.pprof\.gz", artifact.key
    )


def test_a_capture_may_be_kept_out_of_the_store(settings: Settings, deadline: float) -> None:
    off = dataclasses.replace(settings, enabled=False)
    profiler = Profiler(off)
    profiler.record("cpu", 0.02, upload=False).result.result(deadline)
    profiler.stop()

    assert stored(off) == {}


def test_an_unknown_kind_is_refused_with_a_remedy(off: Settings) -> None:
    with pytest.raises(ValueError, match=r"kind = 'heap' cannot be captured: choose from cpu, wall"):
        Profiler(off).capture("heap", 1)


@pytest.mark.parametrize("seconds", [0, -1, 301, float("nan"), float("inf")])
def test_a_length_out_of_range_is_refused_with_a_remedy(off: Settings, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"use more than 0 and at most 300 \(PROFILE_MAX_SECONDS\)"):
        Profiler(off).capture("cpu", seconds)


def test_no_thread_is_left_after_the_last_capture(off: Settings, deadline: float) -> None:
    profiler = Profiler(off)

    profiler.capture("cpu", 0.02)

    for thread in threading.enumerate():
        if thread.name.startswith("profiling-"):
            thread.join(deadline)
    assert threads() == set()
    profiler.stop()


def test_stop_ends_what_runs_and_whoever_waits_gets_what_there_is(settings: Settings, deadline: float) -> None:
    profiler = Profiler(settings)
    recording = profiler.record("cpu", 60)

    profiler.stop()

    assert b"partial: the service stopped" in gzip.decompress(recording.result.result(deadline).artifact.body)


def test_a_profiler_can_be_used_again_after_stop(settings: Settings) -> None:
    profiler = Profiler(settings)
    for _ in range(2):
        with profiler:
            profiler.capture("cpu", 0.02)

    assert len([key for key in stored(settings) if "/cpu/" in key]) == 4


# -- periodic ---------------------------------------------------------------------------------------------------------


def test_the_first_window_opens_at_once_and_is_stored_at_stop_as_partial(settings: Settings) -> None:
    with Profiler(settings) as profiler, Service():
        profiler.record("cpu", 0.2, upload=False).result.result(10)

    content = {re.sub(r"\d", "0", key): gzip.decompress(body) for key, body in stored(settings).items()}
    assert sorted(content) == [f"profiles/watcher/{kind}/0000-00-00/00-00-00.pprof.gz" for kind in ("cpu", "wall")]
    for kind in ("cpu", "wall"):
        body = content[f"profiles/watcher/{kind}/0000-00-00/00-00-00.pprof.gz"]
        assert f"({kind}, periodic, ".encode() in body
        assert b"partial: the service stopped" in body
        assert b"the_work_of_the_service" in body


def test_the_kinds_of_a_window_share_date_and_time(settings: Settings) -> None:
    with Profiler(settings):
        the_work_of_the_service(0.02)

    assert len({key.replace("/wall/", "/cpu/") for key in stored(settings)}) == 1
    assert len(stored(settings)) == 2


def test_windows_follow_each_other(settings: Settings, caplog: pytest.LogCaptureFixture, deadline: float) -> None:
    quick = dataclasses.replace(settings, types=("cpu",), interval=1.0, duration=1.0)
    profiler = Profiler(quick)
    with profiler:
        give_up = time.monotonic() + deadline
        while profiler.status.uploads.stored < 1 and time.monotonic() < give_up:
            the_work_of_the_service(0.01)

    whole = [body for body in stored(quick).values() if b"partial" not in gzip.decompress(body)]
    assert len(whole) >= 1
    assert profiler.status.missed_windows == 0


def test_starting_twice_changes_nothing(settings: Settings) -> None:
    with Profiler(settings) as profiler:
        profiler.start()

    assert len(stored(settings)) == 2


def test_stopping_twice_changes_nothing(settings: Settings) -> None:
    profiler = Profiler(settings)
    profiler.stop()
    with profiler:
        pass
    profiler.stop()

    assert len(stored(settings)) == 2
    assert not profiler.started


def test_a_profiler_that_is_off_starts_no_thread(off: Settings) -> None:
    with Profiler(off) as profiler:
        assert threads() == set()
        assert profiler.started
        assert profiler.status.next_window is None


def test_while_enabled_its_threads_are_daemons(settings: Settings) -> None:
    with Profiler(settings):
        assert "profiling-timer" in threads()
        assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("profiling-"))


def test_captures_on_demand_run_beside_the_window(settings: Settings, deadline: float) -> None:
    with Profiler(settings) as profiler, Service():
        three = [profiler.record("cpu", 0.2) for _ in range(3)]
        for recording in three:
            assert b"the_work_of_the_service" in gzip.decompress(recording.result.result(deadline).artifact.body)

    assert len(stored(settings)) == 5


def test_too_many_captures_at_once_are_refused(off: Settings, deadline: float) -> None:
    profiler = Profiler(off)
    running = [profiler.record("cpu", 60) for _ in range(8)]

    with pytest.raises(TooManyCaptures):
        profiler.record("cpu", 60)

    for recording in running:
        recording.cancel()
        assert isinstance(recording.result.exception(deadline), CaptureCancelled)
    profiler.stop()


def test_stop_returns_within_its_bound(settings: Settings) -> None:
    profiler = Profiler(settings)
    profiler.start()
    since = time.monotonic()

    profiler.stop(timeout=2)

    assert time.monotonic() - since < 2


# -- one a process ----------------------------------------------------------------------------------------------------


def test_equal_settings_share_one_profiler(settings: Settings, stopped_afterwards: list[Profiler]) -> None:
    one, other = Profiler.shared(settings), Profiler.shared(dataclasses.replace(settings))
    stopped_afterwards.append(one)

    assert one is other


def test_other_settings_are_refused(settings: Settings, stopped_afterwards: list[Profiler]) -> None:
    stopped_afterwards.append(Profiler.shared(settings))

    with pytest.raises(RuntimeError, match="give every middleware the same ones"):
        Profiler.shared(dataclasses.replace(settings, sample_rate=50))


def test_a_second_profiler_cannot_start_beside_the_first(settings: Settings) -> None:
    with Profiler(settings):
        with pytest.raises(RuntimeError, match="another Profiler runs in this process"):
            Profiler(settings).start()
        with pytest.raises(RuntimeError, match="another Profiler runs in this process"):
            Profiler(settings).record("cpu", 1)


def test_after_stop_another_one_may_live_here(settings: Settings) -> None:
    with Profiler(settings):
        pass
    with Profiler(dataclasses.replace(settings, sample_rate=50)) as other:
        assert THIS_PROCESS.resident is other


def test_the_settings_of_the_environment_are_taken_when_none_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("PROFILE_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PROFILE_SERVICE_NAME", "checkout")

    assert Profiler().settings == Settings(service_name="checkout")


@pytest.mark.usefixtures("without_extension")
@pytest.mark.parametrize("name", ["native", "polling"])
def test_a_named_engine_that_is_missing_is_refused_at_once(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"PROFILE_ENGINE \(engine\) = '{name}' .*was not built"):
        Profiler(Settings(engine=name))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["native", "polling"])
def test_a_named_engine_that_is_there_is_used(
    settings: Settings, name: str, need_native: Callable[[], None], deadline: float
) -> None:
    need_native()
    with Profiler(dataclasses.replace(settings, engine=name)) as profiler, Service():  # type: ignore[arg-type]
        artifact = profiler.record("cpu", 0.2).result.result(deadline).artifact

    assert f"engine: {name}, ".encode() in gzip.decompress(artifact.body)
    assert b"the_work_of_the_service" in gzip.decompress(artifact.body)


@pytest.mark.usefixtures("without_extension")
def test_without_the_extension_the_portable_engine_runs_and_the_log_says_so_once(
    settings: Settings, caplog: pytest.LogCaptureFixture, deadline: float
) -> None:
    with Profiler(settings) as profiler, Service():
        captured = [profiler.record("cpu", 0.1).result.result(deadline).artifact for _ in range(2)]

    assert all(b"engine: python, " in gzip.decompress(artifact.body) for artifact in captured)
    said = [record for record in caplog.records if "portable engine" in record.message]
    assert [(record.levelname, record.message) for record in said] == [
        (
            "WARNING",
            "profiling: the portable engine is used, which is less exact: "
            "the C extension was not built for this Python and machine",
        )
    ]


def test_where_the_native_engine_runs_the_log_does_not_speak_of_another(
    settings: Settings, need_native: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    need_native()
    with Profiler(settings):
        pass

    assert "portable engine" not in caplog.text


@pytest.mark.usefixtures("without_extension")
def test_who_asks_for_the_portable_engine_is_not_told_of_another(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with Profiler(dataclasses.replace(settings, engine="python")) as profiler:
        assert profiler.label_maker is None

    assert "portable engine" not in caplog.text


# -- what it says -----------------------------------------------------------------------------------------------------


def test_the_start_says_what_is_captured_how_often_and_where_it_goes(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with Profiler(settings) as profiler:
        first = caplog.messages[0]

    assert first.startswith("profiling: cpu, wall every 5m for 2m as service watcher, instance ")
    assert first.endswith(f", to {settings.store}")
    assert profiler.instance != ""


def test_the_start_says_the_final_name_of_the_bucket(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    profiler = Profiler(Settings(enabled=True, types=("cpu",), environment="prod", service_name="w", slow_request=1.0))
    with profiler:
        pass

    assert "to s3://stl-debugging-prod" in caplog.messages[0]
    assert "profiling: PROFILE_SLOW_REQUEST has no effect: PROFILE_TYPES names no trace" in caplog.messages


def test_a_service_without_a_name_is_warned(
    tmp_path: Path, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    with Profiler(Settings(enabled=True, types=("cpu",), store=tmp_path.as_uri())):
        pass

    assert [message for message in caplog.messages if "set PROFILE_SERVICE_NAME" in message]


def test_the_status_says_how_it_is_doing(settings: Settings, deadline: float) -> None:
    profiler = Profiler(settings)
    assert profiler.status.next_window is None
    with profiler:
        profiler.capture("cpu", 0.05)
        give_up = time.monotonic() + deadline
        while profiler.status.uploads.stored < 1 and time.monotonic() < give_up:
            the_work_of_the_service(0.001)
        status = profiler.status

        assert (status.instance, status.enabled, status.kinds) == (profiler.instance, True, ("cpu", "wall"))
        assert status.store == settings.store
        assert status.next_window is not None
        assert 290 < status.next_window <= 300
        assert (status.uploads.stored, status.uploads.failures, status.waiting.captures) == (1, 0, 0)
        assert (status.service, status.interval, status.duration) == ("watcher", 300, 120)
        assert [(stored.kind, stored.key) for stored in status.uploads.last_stored] == [
            ("cpu", status.uploads.last_key)
        ]
        assert status.running_captures == 2
        assert (status.failed_captures, status.missed_windows) == (0, 0)


def test_the_token_is_in_no_line_of_the_log(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with Profiler(dataclasses.replace(settings, token="correct-horse-battery")) as profiler:
        profiler.capture("cpu", 0.02)

    assert caplog.messages != []
    assert "correct-horse-battery" not in caplog.text
    assert all(b"correct-horse" not in gzip.decompress(body) for body in stored(settings).values())


def test_a_step_of_stopping_that_fails_keeps_no_other_from_being_taken(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    profiler = Profiler(settings)
    profiler.start()
    monkeypatch.setattr(profiler._parts.tracer, "hurry", lambda: 1 / 0)

    profiler.stop()

    assert not profiler.started
    assert THIS_PROCESS.resident is None
    assert sorted(key.split("/")[2] for key in stored(settings)) == ["cpu", "wall"]
    assert "ZeroDivisionError" in caplog.text


def test_a_part_that_cannot_go_on_after_a_fork_keeps_no_other_from_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise OSError(24, "Too many open files")

    with Profiler(settings) as profiler:
        profiler.before_fork()
        monkeypatch.setattr(profiler._parts.recorder, "resume", refused)
        profiler.after_fork_in_parent()

        assert profiler.capture("cpu", 0.02).body
