"""SIGTERM with a window open and somebody waiting for a long capture: both are kept as far as they are."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from integration_kit.buckets import Bucket, Key
from integration_kit.http import Answer
from integration_kit.pprof import read_pprof
from integration_kit.servers import ASGI_APP, Server, Servers
from integration_kit.tools import need_module
from integration_kit.waiting import eventually

pytestmark = pytest.mark.server

GONE_SECONDS = 5.0
RAN_SECONDS = 1.0


@dataclass(frozen=True)
class Kind:
    """A way of serving, and whether it can let a client wait."""

    start: Callable[[Servers, dict[str, str]], Server]
    workers: int = 2
    waits: bool = True
    needs: str | None = None
    """A package that is nobody's dependency."""

    @property
    def installed(self) -> bool:
        return self.needs is None or find_spec(self.needs) is not None


def _uvicorn(loop: str) -> Kind:
    return Kind(lambda servers, settings: servers.uvicorn(settings, loop=loop), workers=1)


def _gunicorn(*options: str, waits: bool = True) -> Kind:
    return Kind(lambda servers, settings: servers.gunicorn(settings, "--workers", "2", *options), waits=waits)


def _uvicorn_workers(servers: Servers, settings: dict[str, str]) -> Server:
    options = ("--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker")
    return servers.gunicorn(settings, *options, app=ASGI_APP, hook=False)


# The first ones end before they have loaded boto3, which they do at the last moment then.
KINDS = {
    "gunicorn sync": _gunicorn("--worker-class", "sync", waits=False),
    "uvicorn asyncio": _uvicorn("asyncio"),
    "gunicorn gthread": _gunicorn("--worker-class", "gthread", "--threads", "4"),
    "uvicorn uvloop": _uvicorn("uvloop"),
    "gunicorn uvicorn-worker": Kind(_uvicorn_workers, needs="uvicorn_worker"),
    "granian": Kind(lambda servers, settings: servers.granian(settings, "--workers", "2"), needs="granian"),
    # In one process: workers of its own end as they are when they get SIGTERM, and answer nobody any more.
    "hypercorn": Kind(lambda servers, settings: servers.hypercorn(settings, "--workers", "0"), 1, needs="hypercorn"),
}


@dataclass(frozen=True)
class Profiled:
    """A service with a window open."""

    server: Server
    bucket: Bucket
    settings: dict[str, str]


@pytest.fixture(scope="module")
def profiled(
    shared_servers: Servers, new_bucket: Callable[[], Bucket], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Profiled]:
    """Every kind: started at the same time, ended by its test."""
    running = {}
    for name, kind in KINDS.items():
        if kind.installed:
            bucket = new_bucket()
            settings = bucket.settings(
                PROFILE_ENABLED="1",
                PROFILE_INTERVAL="5m",
                PROFILE_DURATION="2m",
                PROFILE_TYPES="cpu,wall",
                PROFILE_SPOOL_DIR=str(tmp_path_factory.mktemp("spool")),
            )
            running[name] = Profiled(kind.start(shared_servers, settings), bucket, settings)
    return running


@pytest.fixture(scope="module")
def off(shared_servers: Servers) -> dict[str, Server]:
    """Every kind that lets clients wait, with profiling off."""
    settings = {"PROFILE_ENVIRONMENT": "dev"}
    kinds = {name: kind for name, kind in KINDS.items() if kind.waits and kind.installed}
    return {name: kind.start(shared_servers, settings) for name, kind in kinds.items()}


@pytest.mark.s3
@pytest.mark.parametrize("name", KINDS)
def test_the_open_window_is_stored_and_who_waits_gets_a_part(
    name: str, profiled: dict[str, Profiled], servers: Servers, side_by_side: ThreadPoolExecutor
) -> None:
    _need(KINDS[name])
    server, bucket = profiled[name].server, profiled[name].bucket
    workers = KINDS[name].workers
    eventually(lambda: len(server.lines("profiling: cpu, wall every 5m for 2m")) == workers, "every worker profiles")
    waiting = side_by_side.submit(server.get, "/debug/pprof/cpu?seconds=120")
    time.sleep(RAN_SECONDS)

    assert server.terminate() < GONE_SECONDS
    answer = waiting.result(1)
    asked = {answer.headers["X-Profile-Key"]}
    if server.lines("captures wait in", "for the next start"):  # boto3 could not be loaded in time
        asked.add(_start_again(profiled[name], servers, 2 * workers + 2))
    windows = [key for key in _captures(bucket) if key not in asked]
    assert len(windows) == 2 * workers, server.log
    assert len({bucket.metadata(key)["instance"] for key in windows}) == workers
    for key in windows:
        profile = bucket.profile(key)
        assert profile.partial in ("SIGTERM", "the service stopped")
        assert RAN_SECONDS / 2 < profile.seconds < 60
        assert Key.parse(key).kind == profile.sample_types[-1][0]
    _is_a_part(answer, waits=KINDS[name].waits)
    stored = bucket.profile(answer.headers["X-Profile-Key"])
    assert stored.partial == "SIGTERM"
    if KINDS[name].waits:
        assert stored == read_pprof(answer.body)
    assert server.lines("LOST") == []
    assert server.lines("Traceback") == [], server.log


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.waits])
def test_with_profiling_off_a_long_capture_does_not_hold_the_service_up(
    name: str, off: dict[str, Server], side_by_side: ThreadPoolExecutor
) -> None:
    _need(KINDS[name])
    server = off[name]
    assert server.get("/hello").status == 200
    waiting = side_by_side.submit(server.get, "/debug/pprof/cpu?seconds=20")
    time.sleep(RAN_SECONDS)
    assert server.terminate() < GONE_SECONDS
    _is_a_part(waiting.result(1), waits=True)


def test_a_store_that_does_not_answer_does_not_hold_the_service_up(
    servers: Servers, silent_s3: dict[str, str], side_by_side: ThreadPoolExecutor
) -> None:
    settings = {**silent_s3, "PROFILE_ENABLED": "1", "PROFILE_TYPES": "cpu", "PROFILE_ENVIRONMENT": "dev"}
    running = [KINDS[name].start(servers, settings) for name in ("uvicorn asyncio", "gunicorn gthread")]
    for server in running:
        server.wait_for_log("profiling: cpu every 5m for 2m")
    time.sleep(RAN_SECONDS)
    assert max(side_by_side.map(Server.terminate, running)) < GONE_SECONDS
    for server in running:
        assert server.lines("profiling: 1 captures wait in ", "/spool/", " for the next start")
        assert server.lines("LOST") == []


def test_sigterm_ends_with_the_exit_code_it_has_without_the_profiler(servers: Servers, tmp_path: Path) -> None:
    codes = {}
    for enabled in ("0", "1"):
        settings = {"PROFILE_ENABLED": enabled, "PROFILE_STORE": (tmp_path / "store").as_uri()}
        server = servers.uvicorn(settings)
        assert server.url
        server.process.send_signal(signal.SIGTERM)
        codes[enabled] = server.process.wait(20)
    assert codes["0"] == codes["1"]


def _start_again(service: Profiled, servers: Servers, count: int) -> str:
    """Starts a service that stores what the one before has left, `count` captures in the end with one of its own.

    Returns the key of that one.
    """
    server = servers.uvicorn({**service.settings, "PROFILE_ENABLED": "0"})
    answer = server.get("/debug/pprof/cpu?seconds=0.1")
    eventually(lambda: len(_captures(service.bucket)) == count, f"{count} captures in the store")
    return answer.headers["X-Profile-Key"]


def _captures(bucket: Bucket) -> list[str]:
    """A key of each capture: one whose upload was cut off by the end of the process can be there twice."""
    return list({bucket.metadata(key)["capture-id"]: key for key in bucket.list_keys()}.values())


def _need(kind: Kind) -> None:
    if kind.needs is not None:
        need_module(kind.needs, f"pip install {kind.needs.replace('_', '-')}")


def _is_a_part(answer: Answer, *, waits: bool) -> None:
    assert answer.status == (200 if waits else 202)
    if waits:
        profile = read_pprof(answer.body)
        assert profile.partial == "SIGTERM"
        assert 0 < profile.seconds < 10
