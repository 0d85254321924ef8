"""Where a capture lies in the store."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiling_middleware.keys import new_capture_id, new_instance_id, own_key, shared_key
from profiling_middleware.model import CaptureInfo

MakeInfo = Callable[..., CaptureInfo]


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("cpu", "profiles/watcher/cpu/2026-01-26/15-30-00.pprof.gz"),
        ("block", "profiles/watcher/block/2026-01-26/15-30-00.pprof.gz"),
        ("mutex", "profiles/watcher/mutex/2026-01-26/15-30-00.pprof.gz"),
        ("trace", "profiles/watcher/trace/2026-01-26/15-30-00.trace.gz"),
        ("wall", "profiles/watcher/wall/2026-01-26/15-30-00.pprof.gz"),
    ],
)
def test_the_key_of_a_window_is_that_of_the_examples(make_info: MakeInfo, kind: str, key: str) -> None:
    assert shared_key(make_info(kind=kind)) == key


@pytest.mark.parametrize(("kind", "ending"), [("cpu", ".pprof.gz"), ("trace", ".trace.gz")])
def test_the_own_key_adds_the_instance_and_the_capture(make_info: MakeInfo, kind: str, ending: str) -> None:
    key = own_key(make_info(kind=kind, instance="web-1-7-0a1b2c3d", capture_id="0123456789abcdef"))

    assert key == f"profiles/watcher/{kind}/2026-01-26/15-30-00_web-1-7-0a1b2c3d-0123456789abcdef{ending}"


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's clock shows another hour, and half the day another date."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XYZ-11:45")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_utc")
@pytest.mark.parametrize(
    ("nanoseconds", "moment"),
    [
        (1_767_225_599_999_999_999, "2025-12-31/23-59-59"),
        (1_767_225_600_000_000_000, "2026-01-01/00-00-00"),
        (1_709_168_523_000_000_000, "2024-02-29/01-02-03"),
    ],
)
def test_date_and_time_are_the_utc_start_of_the_window(make_info: MakeInfo, nanoseconds: int, moment: str) -> None:
    assert shared_key(make_info(started_ns=nanoseconds)) == f"profiles/watcher/cpu/{moment}.pprof.gz"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 4_102_444_799_999_999_999))
def test_a_key_names_the_second_in_which_the_window_began(make_info: MakeInfo, nanoseconds: int) -> None:
    key = shared_key(make_info(started_ns=nanoseconds))

    read = datetime.strptime(key, "profiles/watcher/cpu/%Y-%m-%d/%H-%M-%S.pprof.gz").replace(tzinfo=UTC)
    assert read.timestamp() == nanoseconds // 10**9


def test_the_kinds_of_one_window_differ_in_nothing_but_the_kind(make_info: MakeInfo) -> None:
    keys = {shared_key(make_info(kind=kind, capture_id=kind)).replace(kind, "KIND") for kind in ("cpu", "wall")}

    assert keys == {"profiles/watcher/KIND/2026-01-26/15-30-00.pprof.gz"}


def test_capture_ids_are_64_random_bits() -> None:
    ids = {new_capture_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in ids)


def test_an_instance_is_host_process_and_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "ip-10-0-0-1.eu_central.internal")

    assert re.fullmatch(rf"ip-10-0-0-1-{os.getpid()}-[0-9a-f]{{8}}", new_instance_id())
    assert len({new_instance_id() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("web_1", "web-1"),
        ("w\u00e9b/../x", "w-b"),
        ("-", "host"),
        ("", "host"),
        (".local", "host"),
        ("h" * 64, "h" * 32),
    ],
)
def test_a_host_that_a_key_cannot_carry_is_written_with_hyphens(
    monkeypatch: pytest.MonkeyPatch, host: str, shown: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)

    assert new_instance_id().startswith(f"{shown}-{os.getpid()}-")
