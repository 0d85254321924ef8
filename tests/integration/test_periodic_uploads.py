"""`app.add_middleware(ProfilingMiddleware)`, settings in the environment: windows arrive in a real S3 bucket."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from integration_kit.buckets import Bucket, Key
from integration_kit.fake_s3 import FakeS3
from integration_kit.servers import Server, Servers

pytestmark = [pytest.mark.server, pytest.mark.s3]

LOOPS = ("asyncio", "uvloop")
INTERVAL, WINDOWS = 2, 3


@pytest.fixture(scope="module")
def services(shared_servers: Servers, new_bucket: Callable[[], Bucket]) -> dict[str, tuple[Server, Bucket]]:
    """The service on each loop, profiled at the same time."""
    running = {}
    for loop in LOOPS:
        bucket = new_bucket()
        settings = bucket.settings(
            PROFILE_ENABLED="1",
            PROFILE_INTERVAL=f"{INTERVAL}s",
            PROFILE_DURATION="1s",
            PROFILE_TYPES="cpu,wall",
            TEST_APP_BURNS="1",
        )
        running[loop] = (shared_servers.uvicorn(settings, loop=loop), bucket)
    return running


@pytest.mark.parametrize("loop", LOOPS)
def test_every_window_arrives_under_the_key_of_its_second(
    loop: str, services: dict[str, tuple[Server, Bucket]]
) -> None:
    server, bucket = services[loop]
    assert server.get("/threads").json()["loop"] == loop
    cpu_keys = bucket.wait_for_keys(WINDOWS, "profiles/shop/cpu/")[:WINDOWS]
    wall_keys = bucket.wait_for_keys(WINDOWS, "profiles/shop/wall/")[:WINDOWS]

    cpu = [Key.parse(key) for key in cpu_keys]
    wall = [Key.parse(key) for key in wall_keys]
    assert all(key.own is None for key in (*cpu, *wall))
    # One window has one time, whatever the kind.
    assert [key.started for key in cpu] == [key.started for key in wall]
    for number, key in enumerate(cpu):
        assert (key.started - cpu[0].started).total_seconds() == pytest.approx(number * INTERVAL, abs=1)

    first = bucket.profile(cpu_keys[0])
    for number, (cpu_key, wall_key) in enumerate(zip(cpu_keys, wall_keys, strict=True)):
        cpu_profile, wall_profile = bucket.profile(cpu_key), bucket.profile(wall_key)
        assert cpu_profile.started == Key.parse(cpu_key).started
        assert cpu_profile.time_ns == wall_profile.time_ns
        # Against the first one, not the one before: what is late must not make the following late.
        assert (cpu_profile.time_ns - first.time_ns) / 1e9 == pytest.approx(number * INTERVAL, abs=0.5)
        for profile in (cpu_profile, wall_profile):
            assert profile.seconds == pytest.approx(1.0, abs=0.5)
            assert profile.partial is None
        assert cpu_profile.sample_types == (("samples", "count"), ("cpu", "nanoseconds"))
        assert wall_profile.sample_types == (("samples", "count"), ("wall", "nanoseconds"))
        assert bucket.metadata(cpu_key) == {"capture-id": cpu_profile.capture_id, "instance": cpu_profile.instance}
    leaves = sum((bucket.profile(key).leaves for key in cpu_keys), Counter())
    assert leaves.most_common(1)[0][0] == "profiled_asgi.burn_cpu"


@pytest.mark.parametrize("loop", LOOPS)
def test_the_log_names_the_bucket_and_each_stored_capture(
    loop: str, services: dict[str, tuple[Server, Bucket]]
) -> None:
    server, bucket = services[loop]
    keys = bucket.wait_for_keys(2)[:2]
    assert server.lines("profiling: cpu, wall every 2s for 1s as service shop", f"to s3://{bucket.name}")
    for key in keys:
        server.wait_for_log(rf"stored kind=\w+ key={key} bytes={len(bucket.body(key))} seconds=\d+\.\d+ in s3://")


def test_off_is_off(servers: Servers) -> None:
    with FakeS3() as store:
        # Services that would have uploaded by then if they were on.
        settings = {**_without_bucket(store), "PROFILE_INTERVAL": "1s", "PROFILE_DURATION": "1s"}
        running = {loop: servers.uvicorn(settings, loop=loop) for loop in LOOPS}
        for server in running.values():
            assert server.get("/hello").status == 200
        time.sleep(1.5)
        for loop, server in running.items():
            state = server.get("/threads").json()
            assert state["loop"] == loop
            assert [name for name in state["threads"] if name.startswith("profiling-")] == []
            assert state["modules"] == []
            server.terminate()
            assert "profiling" not in server.log
        assert store.requests == []


def test_off_still_answers_on_demand_and_uploads_nothing(servers: Servers) -> None:
    with FakeS3() as store:
        server = servers.uvicorn(_without_bucket(store))
        answer = server.get("/debug/pprof/cpu?seconds=0.3")
        assert (answer.status, answer.headers["X-Profile-Upload"]) == (200, "off")
        assert answer.headers["X-Profile-Key"] is None
        assert server.facts()["Store"].startswith("none")
        assert server.get("/threads").json()["modules"] == ["profiling_middleware.profiler"]
        server.terminate()
        assert store.requests == []


def _without_bucket(store: FakeS3) -> dict[str, str]:
    """What a developer's service needs to store there, but that nobody named a bucket."""
    settings = {name: value for name, value in store.settings().items() if name != "PROFILE_S3_BUCKET"}
    return {**settings, "PROFILE_ENVIRONMENT": "dev"}


def test_a_directory_takes_the_place_of_the_bucket(servers: Servers, tmp_path: Path) -> None:
    settings = {
        "PROFILE_ENABLED": "1",
        "PROFILE_SERVICE_NAME": "shop",
        "PROFILE_STORE": (tmp_path / "store").as_uri(),
        "PROFILE_INTERVAL": "1s",
        "PROFILE_DURATION": "1s",
        "PROFILE_TYPES": "cpu",
    }
    server = servers.uvicorn(settings)
    server.wait_for_log("stored kind=cpu")
    files = [path.relative_to(tmp_path / "store").as_posix() for path in tmp_path.glob("store/**/*.gz")]
    assert {(key.service, key.kind, key.own) for key in map(Key.parse, files)} == {("shop", "cpu", None)}
    assert server.get("/threads").json()["modules"] == ["profiling_middleware.profiler"]


def test_a_setting_that_cannot_be_used_stops_the_start(servers: Servers) -> None:
    server = servers.uvicorn({"PROFILE_ENABLED": "1", "PROFILE_INTERVAL": "5 minutes"})
    assert server.process.wait(10) != 0
    assert "PROFILE_INTERVAL (interval) = '5 minutes' is not a duration" in server.log
