"""gunicorn: every worker profiles, also an idle one and a preloaded one, and none is held up or replaced by another."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from integration_kit.buckets import Bucket, Key
from integration_kit.http import open_request, receive_all, waiting_clients
from integration_kit.pprof import ReadProfile, read_pprof
from integration_kit.servers import Server, Servers
from integration_kit.waiting import eventually

pytestmark = [pytest.mark.server, pytest.mark.s3]

KINDS_OF_SERVER = {
    "sync": ("--worker-class", "sync"),
    "sync preloaded": ("--worker-class", "sync", "--preload"),
    "gthread": ("--worker-class", "gthread", "--threads", "12"),
    "gthread preloaded": ("--worker-class", "gthread", "--threads", "12", "--preload"),
}
# Not a whole second: two workers then meet in the same second sooner or later, wherever in a second they started.
INTERVAL, DURATION = 1.3, 1
TIMEOUT = 4


@dataclass
class Service:
    """A service of two workers."""

    server: Server
    bucket: Bucket

    def profiles(self) -> dict[str, ReadProfile]:
        """All windows in the bucket."""
        return {key: self.bucket.profile(key) for key in self.bucket.list_keys("profiles/shop/cpu/")}


@pytest.fixture(scope="module")
def running(shared_servers: Servers, new_bucket: Callable[[], Bucket]) -> dict[str, Service]:
    """Every kind of server, started at the same time. Nobody sends them a request before their windows are there."""
    services = {}
    for name, options in KINDS_OF_SERVER.items():
        bucket = new_bucket()
        settings = bucket.settings(
            PROFILE_ENABLED="1", PROFILE_INTERVAL=f"{INTERVAL}s", PROFILE_DURATION=f"{DURATION}s", PROFILE_TYPES="cpu"
        )
        server = shared_servers.gunicorn(settings, "--workers", "2", "--timeout", str(TIMEOUT), *options)
        services[name] = Service(server, bucket)
    for service in services.values():
        _wait_for_a_second_with_two_windows(service.bucket)
    return services


def _wait_for_a_second_with_two_windows(bucket: Bucket) -> None:
    def look() -> bool:
        started: dict[object, list[str]] = {}
        for key in bucket.list_keys():
            started.setdefault(Key.parse(key).started, []).append(key)
        return any(_are_of_two(bucket, keys) for keys in started.values())

    eventually(look, "windows of two workers in one second", pause=0.2)


def _are_of_two(bucket: Bucket, keys: Sequence[str]) -> bool:
    """Of a worker that began one late and the next one in time there may be two in a second, too."""
    return len({bucket.metadata(key)["instance"] for key in keys} if len(keys) > 1 else ()) > 1


@pytest.fixture(params=KINDS_OF_SERVER)
def service(request: pytest.FixtureRequest, running: dict[str, Service]) -> Service:
    """One of them."""
    return running[request.param]


def test_every_worker_uploads_and_none_replaces_another(service: Service) -> None:
    profiles = service.profiles()
    assert len({profile.instance for profile in profiles.values()}) == 2
    by_second: dict[object, list[str]] = {}
    for key, profile in profiles.items():
        parsed = Key.parse(key)
        assert parsed.started == profile.started
        assert parsed.own in (None, f"{profile.instance}-{profile.capture_id}")
        assert service.bucket.metadata(key) == {"capture-id": profile.capture_id, "instance": profile.instance}
        by_second.setdefault(parsed.started, []).append(key)
    assert len({profile.capture_id for profile in profiles.values()}) == len(profiles)
    assert any(_are_of_two(service.bucket, keys) for keys in by_second.values())
    for keys in by_second.values():
        assert sum(Key.parse(key).own is None for key in keys) == 1
    # What the log calls stored is there, all of it.
    for line in service.server.lines("profiling: stored kind=cpu"):
        key = line.partition("key=")[2].partition(" ")[0]
        assert key in profiles or service.bucket.list_keys(key) == [key]


def test_every_window_of_every_worker_is_there_or_said_to_be_missed(service: Service) -> None:
    starts: dict[str, list[float]] = {}
    for profile in service.profiles().values():
        starts.setdefault(profile.instance, []).append(profile.time_ns / 1e9)
    missing = 0
    for times in starts.values():
        # On a busy machine one begins late, but before its end.
        due = math.ceil((max(times) - min(times) - DURATION) / INTERVAL) + 1
        missing += max(0, due - len(times))
    # What comes too late on a machine that stands still is not a window that got lost.
    said = service.server.lines(" missed: ")
    assert missing <= sum(int(line.partition("profiling: ")[2].split()[0]) for line in said), starts


def test_the_master_has_no_thread_of_the_profiler(running: dict[str, Service]) -> None:
    before = {}
    for name, service in running.items():
        before[name] = len(_looks_at_the_master(service.server))
        a_worker = int(service.server.lines("Booting worker with pid")[-1].rpartition(" ")[2])
        # It is replaced, so that the master shows itself at a time when nothing else goes on in it.
        os.kill(a_worker, signal.SIGTERM)
    for name, service in running.items():
        eventually(
            lambda name=name, server=service.server: len(_looks_at_the_master(server)) > before[name],
            "the master replaces the worker",
        )
        assert [line for line in _looks_at_the_master(service.server) if not line.endswith("[]")] == []
        # A child of a master that has forked before begins anew, too: a third instance uploads.
        eventually(lambda bucket=service.bucket: len(_instances(bucket)) == 3, "the new worker uploads", pause=0.3)


def _looks_at_the_master(server: Server) -> list[str]:
    return server.lines("profiling threads of the master:")


def _instances(bucket: Bucket) -> set[str]:
    return {bucket.metadata(key)["instance"] for key in bucket.list_keys()}


def test_a_worker_that_does_one_thing_at_a_time_answers_at_once(running: dict[str, Service]) -> None:
    services = [running["sync"], running["sync preloaded"]]
    keys = []
    for service in services:
        long = service.server.get("/debug/pprof/cpu?seconds=120")
        short = service.server.get(f"/debug/pprof/cpu?seconds={TIMEOUT + 1}")
        for answer in (long, short):
            assert (answer.status, answer.text.strip()) == (202, answer.headers["X-Profile-Key"])
            assert answer.seconds < TIMEOUT
            assert Key.parse(answer.text.strip()).own
        keys.append(short.text.strip())
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        assert max(service.server.get("/hello").seconds for service in services) < 1
        time.sleep(0.1)
    for service, key in zip(services, keys, strict=True):
        assert service.bucket.profile(key).seconds == pytest.approx(TIMEOUT + 1, abs=0.5)
        assert service.server.lines("WORKER TIMEOUT") == []
        assert "upload=0" in service.server.get("/debug/pprof/cpu?seconds=1&upload=0").text


def test_a_worker_with_threads_holds_the_answer_back(
    running: dict[str, Service], side_by_side: ThreadPoolExecutor
) -> None:
    services = [running["gthread"], running["gthread preloaded"]]
    path = f"/debug/pprof/cpu?seconds={TIMEOUT + 1}"
    answers = list(side_by_side.map(lambda service: service.server.get(path), services))
    for service, answer in zip(services, answers, strict=True):
        assert answer.status == 200
        assert read_pprof(answer.body).seconds == pytest.approx(TIMEOUT + 1, abs=0.5)
        assert read_pprof(answer.body) == service.bucket.profile(answer.headers["X-Profile-Key"])
        assert service.server.lines("WORKER TIMEOUT") == []


@pytest.fixture
def off(servers: Servers) -> Server:
    """A service with profiling off: one worker with threads."""
    return servers.gunicorn(
        {"PROFILE_ENVIRONMENT": "dev"}, "--worker-class", "gthread", "--workers", "1", "--threads", "12"
    )


def test_the_first_requests_may_come_all_at_once(off: Server, side_by_side: ThreadPoolExecutor) -> None:
    assert off.get("/hello").text == "hello"
    answers = list(side_by_side.map(lambda _: off.get("/debug/pprof/cpu?seconds=0.3"), range(8)))
    assert [(answer.status, answer.text) for answer in answers if answer.status != 200] == []


def test_off_is_off_and_a_client_that_leaves_frees_its_place(off: Server) -> None:
    assert off.profiling_threads() == []
    assert off.get("/debug/pprof/cpu?seconds=0.1").status == 200
    with waiting_clients(f"{off.url}/debug/pprof/cpu?seconds=60", 8):
        assert off.get("/debug/pprof/cpu?seconds=0.1").status == 429
    eventually(lambda: off.get("/debug/pprof/cpu?seconds=0.1").status == 200, "a place is free", seconds=10)
    eventually(lambda: off.profiling_threads() == [], "all threads end", seconds=10)


def test_a_refused_method_leaves_the_connection_usable(off: Server) -> None:
    with open_request(f"{off.url}/hello") as connection:
        assert receive_all(connection, b"hello").startswith(b"HTTP/1.1 200 ")
        connection.sendall(
            b"HEAD /debug/pprof/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
            b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        received = receive_all(connection)
    head, _, rest = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert rest.startswith(b"HTTP/1.1 200 ")
    assert rest.endswith(b"hello")


def test_without_the_hook_a_worker_begins_with_its_first_request(servers: Servers, bucket: Bucket) -> None:
    settings = bucket.settings(PROFILE_ENABLED="1", PROFILE_INTERVAL="1s", PROFILE_DURATION="1s", PROFILE_TYPES="cpu")
    server = servers.gunicorn(settings, "--workers", "1", hook=False)
    assert server.get("/hello").text == "hello"
    assert bucket.profile(bucket.wait_for_keys(1)[0]).partial is None
