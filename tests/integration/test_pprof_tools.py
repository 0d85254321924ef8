"""`go tool pprof`, old and new, reads what was uploaded and what it fetches itself, and has nothing to complain of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from integration_kit.buckets import Bucket
from integration_kit.go import Go
from integration_kit.pprof import ReadProfile, read_pprof
from integration_kit.servers import Server, Servers
from integration_kit.waiting import eventually

pytestmark = [pytest.mark.server, pytest.mark.s3]

HOT = "profiled_asgi.burn_cpu"
TOKEN = "tell-nobody"


@pytest.fixture(scope="module")
def service(shared_servers: Servers, new_bucket: Callable[[], Bucket]) -> tuple[Server, Bucket]:
    """Two workers, each busy for half of its time."""
    bucket = new_bucket()
    settings = bucket.settings(
        PROFILE_ENABLED="1",
        PROFILE_INTERVAL="1200ms",
        PROFILE_DURATION="1s",
        PROFILE_TYPES="cpu,wall",
        PROFILE_TOKEN=TOKEN,
        TEST_APP_BURNS="1",
    )
    return shared_servers.uvicorn(settings, "--workers", "2"), bucket


@pytest.fixture(scope="module")
def uploaded(
    service: tuple[Server, Bucket], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, int], tuple[Path, ReadProfile]]:
    """One uploaded profile per kind and worker (0, 1), as a file and as it should be read."""
    _, bucket = service
    directory = tmp_path_factory.mktemp("uploaded")
    found: dict[tuple[str, str], tuple[Path, ReadProfile]] = {}

    def look() -> bool:
        for key in bucket.list_keys():
            kind = key.split("/")[2]
            body = bucket.body(key)
            profile = read_pprof(body)
            if (kind, profile.instance) not in found:
                path = directory / f"{kind}-{profile.instance}.pprof.gz"
                path.write_bytes(body)
                found[kind, profile.instance] = path, profile
        return len(found) == 4

    eventually(look, "both kinds from both workers", pause=0.5)
    workers = sorted({instance for _, instance in found})
    return {(kind, workers.index(instance)): what for (kind, instance), what in found.items()}


@pytest.mark.parametrize("kind", ["cpu", "wall"])
def test_uploaded_profiles_are_read_without_a_word(
    kind: str, go: Go, uploaded: dict[tuple[str, int], tuple[Path, ReadProfile]]
) -> None:
    path, _ = uploaded[kind, 0]
    run = go.pprof("-top", path)
    assert (run.code, run.errors) == (0, "")
    assert f"Type: {kind}" in run.output
    assert "File: shop" in run.output
    if kind == "cpu":
        assert run.rows()[0] == HOT
    else:
        assert HOT in run.rows()


def test_workers_merge(go: Go, uploaded: dict[tuple[str, int], tuple[Path, ReadProfile]], tmp_path: Path) -> None:
    (one, one_read), (other, other_read) = uploaded["cpu", 0], uploaded["cpu", 1]
    merged = tmp_path / "merged.pprof.gz"
    run = go.pprof("-proto", "-output", merged, one, other)
    assert (run.code, run.errors.replace(f"Generating report in {merged}\n", "")) == (0, "")
    read = read_pprof(merged.read_bytes())
    assert read.binaries == ("shop",)  # the processes count as one program
    assert read.total == one_read.total + other_read.total
    assert read.leaves[HOT] == one_read.leaves[HOT] + other_read.leaves[HOT]
    assert read.duration_ns == one_read.duration_ns + other_read.duration_ns
    assert go.pprof("-top", one, other).rows()[0] == HOT


def test_two_profiles_are_compared(go: Go, uploaded: dict[tuple[str, int], tuple[Path, ReadProfile]]) -> None:
    (one, _), (other, _) = uploaded["cpu", 0], uploaded["cpu", 1]
    run = go.pprof("-top", "-diff_base", one, other)
    assert (run.code, run.errors) == (0, "")
    assert HOT in run.rows()
    same = go.pprof("-top", "-diff_base", one, one)
    assert (same.code, same.errors) == (0, "")
    assert "Showing nodes accounting for 0, 0% of" in same.output


def test_threads_are_labels(go: Go, uploaded: dict[tuple[str, int], tuple[Path, ReadProfile]]) -> None:
    path, read = uploaded["cpu", 0]
    run = go.pprof("-tags", path)
    assert (run.code, run.errors) == (0, "")
    assert "thread: Total" in run.output
    assert "thread_id: Total" in run.output
    assert "burner" in run.output
    only = go.pprof("-top", "-tagfocus=thread=burner", path)
    assert only.rows()[0] == HOT
    assert read.threads["burner"] > read.total / 2


@pytest.mark.parametrize("route", ["profile", "wall"])
def test_it_fetches_from_the_service_itself(route: str, go: Go, service: tuple[Server, Bucket]) -> None:
    server, _ = service
    address = server.url.removeprefix("http://")
    run = go.pprof("-top", f"http://anyone:{TOKEN}@{address}/debug/pprof/{route}?seconds=1&upload=0")
    assert run.code == 0
    said = [line for line in run.errors.splitlines() if not line.startswith(("Fetching profile", "Saved profile"))]
    assert said == []
    assert HOT in run.rows()[: 1 if route == "profile" else None]


def test_without_the_token_it_is_told_why(go: Go, service: tuple[Server, Bucket]) -> None:
    server, _ = service
    run = go.pprof("-top", f"{server.url}/debug/pprof/profile?seconds=1")
    assert run.code != 0
    assert "401" in run.errors
    assert "send PROFILE_TOKEN" in run.errors
    assert run.output == ""
