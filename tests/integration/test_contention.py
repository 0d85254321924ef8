"""The sample service under load: its uploaded block and mutex profiles say what it waits for, in `go tool pprof`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from integration_kit.buckets import Bucket
from integration_kit.go import Go
from integration_kit.servers import Server, Servers
from integration_kit.waiting import eventually

from sample_app.load import run_load
from sample_app.pprof_reader import Profile, read_pprof

pytestmark = [pytest.mark.server, pytest.mark.s3]

PAY, UPSTREAM = "sample_app.work.CardTerminal.pay", "sample_app.upstream.ask_upstream"
LOAD_SECONDS = 6.0
TOKEN = "tell-nobody"


@pytest.fixture(scope="module")
def service(
    shared_servers: Servers, new_bucket: Callable[[], Bucket], need_native: Callable[[], None]
) -> tuple[Server, Bucket]:
    need_native()
    bucket = new_bucket()
    settings = bucket.settings(
        PROFILE_ENABLED="1",
        PROFILE_INTERVAL="2s",
        PROFILE_DURATION="2s",
        PROFILE_TYPES="block,mutex",
        PROFILE_TOKEN=TOKEN,
    )
    options = ("--factory", "--app-dir", str(Path(__file__).parents[2]))
    return shared_servers.uvicorn(settings, *options, app="sample_app.app:create_app"), bucket


@pytest.fixture(scope="module")
def uploaded(service: tuple[Server, Bucket], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """By kind, in order: one of a service at rest, and one after a load on a lock and on a slow upstream."""
    server, bucket = service
    directory, found = tmp_path_factory.mktemp("contention"), dict[str, list[Path]]()

    def keys(kind: str) -> list[str]:
        return sorted(key for key in bucket.list_keys() if key.split("/")[2] == kind)

    eventually(lambda: len(keys("mutex")) >= 2 and len(keys("block")) >= 2, "two windows of rest")
    rest = {kind: keys(kind)[-1] for kind in ("block", "mutex")}
    # The lock is held for half of the time: were it much more, a slow machine would have a queue that grows and grows.
    mix = {"/checkout": 1, "/upstream": 1}
    asyncio.run(run_load(server.url, rate=100, seconds=LOAD_SECONDS, mix=mix))
    count = len(keys("mutex"))
    eventually(lambda: len(keys("mutex")) > count and len(keys("block")) > count, "a window that began after the load")
    for kind, key in rest.items():
        for number, which in enumerate((key, keys(kind)[-1])):
            path = directory / f"{kind}-{number}.pprof.gz"
            path.write_bytes(bucket.body(which))
            found.setdefault(kind, []).append(path)
    return found


def read(path: Path) -> Profile:
    return read_pprof(path.read_bytes())


def test_the_contended_lock_comes_first(go: Go, uploaded: dict[str, list[Path]]) -> None:
    for kind in ("block", "mutex"):
        run = go.pprof("-top", "-sample_index=delay", "-tagfocus=wait=lock", uploaded[kind][1])
        assert (run.code, run.errors) == (0, "")
        assert "Type: delay" in run.output
        assert run.rows()[0] == PAY, run.output


def test_the_contended_lock_comes_first_of_all_that_holds_others_up(go: Go, uploaded: dict[str, list[Path]]) -> None:
    run = go.pprof("-top", "-sample_index=delay", uploaded["mutex"][1])
    assert (run.code, run.errors) == (0, "")
    assert run.rows()[0] == PAY, run.output


def test_the_slow_upstream_comes_first_of_what_tasks_wait_for(go: Go, uploaded: dict[str, list[Path]]) -> None:
    """By the functions of the application: each that waits for a thread waits in anyio's."""
    run = go.pprof("-top", "-sample_index=delay", "-tagfocus=wait=await", "-show=sample_app", uploaded["block"][1])
    assert (run.code, run.errors) == (0, "")
    functions = [row for row in run.rows() if row.startswith("sample_app.")]
    assert functions[0] == UPSTREAM, run.output


def test_a_service_at_rest_is_idle(uploaded: dict[str, list[Path]]) -> None:
    profile = read(uploaded["block"][0])
    place = profile.column("delay")
    delays: dict[str, int] = {}
    for sample in profile.samples:
        kind = str(sample.labels["wait"])
        delays[kind] = delays.get(kind, 0) + sample.values[place]
    busy = sum(delay for kind, delay in delays.items() if kind != "idle")
    # What starting took, and one answer.
    assert delays["idle"] > 1e9
    assert busy <= 0.1 * delays["idle"], delays


def test_snapshots_only_grow_and_say_since_when(uploaded: dict[str, list[Path]]) -> None:
    for kind in ("block", "mutex"):
        rest, loaded = map(read, uploaded[kind])
        since = [[line for line in one.comments if line.startswith("collected: ")] for one in (rest, loaded)]
        assert since[0] == since[1]
        assert since[0][0].startswith("collected: cumulative, since 20")
        assert [line for line in rest.comments if line.startswith("instance: ")]
        place = rest.column("delay")
        before = {sums(sample): sample.values[place] for sample in rest.samples}
        after = {sums(sample): sample.values[place] for sample in loaded.samples}
        assert all(after.get(key, 0) >= value for key, value in before.items())


def sums(sample: object) -> tuple[object, ...]:
    return tuple(sample.stack), tuple(sorted(sample.labels.items()))  # type: ignore[attr-defined]


def test_the_routes_answer_with_all_or_with_what_comes(service: tuple[Server, Bucket]) -> None:
    server, _ = service
    paths = ("block?upload=0", "lock?seconds=0.2&upload=0", "mutex?debug=1&upload=0")
    everything, difference, text = (
        server.get(f"/debug/pprof/{path}", headers={"Authorization": f"Bearer {TOKEN}"}) for path in paths
    )
    assert (everything.status, difference.status, text.status) == (200, 200, 200)
    assert any("cumulative" in line for line in read_pprof(everything.body).comments)
    assert any("difference" in line for line in read_pprof(difference.body).comments)
    assert text.headers["content-type"].startswith("text/plain")
