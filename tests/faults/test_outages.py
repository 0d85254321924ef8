"""S3 away in every shape while windows run: nothing is lost, and who uses the service does not notice."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from integration_kit.buckets import Key
from integration_kit.fake_s3 import (
    ACCESS_DENIED,
    CLOCK_SKEW,
    EXPIRED,
    INTERNAL_ERROR,
    NO_SUCH_BUCKET,
    SLOW_DOWN,
    FakeS3,
    Fault,
)
from integration_kit.pprof import read_pprof
from integration_kit.servers import APPS, Server, Servers
from integration_kit.waiting import eventually

INTERVAL_SECONDS = 2
SETTINGS = {
    "PROFILE_ENABLED": "1",
    "PROFILE_ENVIRONMENT": "dev",
    "PROFILE_INTERVAL": f"{INTERVAL_SECONDS}s",
    "PROFILE_DURATION": "1s",
    "PROFILE_TYPES": "cpu",
    "PYTHONPATH": f"{APPS}:{Path(__file__).parent}",
}


@contextmanager
def answering(store: FakeS3, fault: Fault) -> Iterator[None]:
    store.fault = fault
    yield
    store.fault = None


@contextmanager
def away(store: FakeS3) -> Iterator[None]:
    store.go_away()
    yield
    store.come_back()


@contextmanager
def hanging(store: FakeS3) -> Iterator[None]:
    store.answers.clear()
    yield
    store.answers.set()


@contextmanager
def resetting(store: FakeS3) -> Iterator[None]:
    store.resets = True
    yield
    store.resets = False


@contextmanager
def losing_answers(store: FakeS3) -> Iterator[None]:
    store.loses_answers = True
    yield
    store.loses_answers = False


SHAPES = {
    "refused": away,
    "hanging": hanging,
    "reset in the middle of a body": resetting,
    "500": lambda store: answering(store, INTERNAL_ERROR),
    "503 SlowDown": lambda store: answering(store, SLOW_DOWN),
    "403": lambda store: answering(store, ACCESS_DENIED),
    "404": lambda store: answering(store, NO_SUCH_BUCKET),
    "clock skew": lambda store: answering(store, CLOCK_SKEW),
    "expired credentials": lambda store: answering(store, EXPIRED),
    "answers lost": losing_answers,
}


@dataclass
class Users:
    """Ask all the time, one after the other."""

    server: Server
    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0

    @contextmanager
    def asking(self) -> Iterator[None]:
        over = threading.Event()

        def ask() -> None:
            while not over.wait(0.02):
                try:
                    answer = self.server.get("/hello", timeout=10)
                except OSError as error:
                    self.wrong.append(repr(error))
                    continue
                self.answers += 1
                self.slowest = max(self.slowest, answer.seconds)
                if (answer.status, answer.body) != (200, b"hello"):
                    self.wrong.append(f"{answer.status} {answer.text[:100]}")

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield
        finally:
            over.set()
            asking.join()


@pytest.mark.server
@pytest.mark.timeout(900)
def test_every_window_is_in_the_store_when_it_is_back(servers: Servers, chance: random.Random, whole: bool) -> None:
    # One that hangs takes half a minute.
    names = list(SHAPES) if whole else chance.sample([name for name in SHAPES if name != "hanging"], 3)
    windows, met = (5, {}) if whole else (2, {})
    with FakeS3() as store:
        server = servers.uvicorn({**store.settings(), **SETTINGS}, app="impatient:app")
        users = Users(server)
        server.wait_for_log("profiling: stored ")
        with users.asking():
            for name in names:
                failures = len(server.lines("NOT stored"))
                with SHAPES[name](store):
                    time.sleep(windows * INTERVAL_SECONDS)
                    eventually(lambda: len(server.lines("NOT stored")) > failures, f"{name} is met")  # noqa: B023
                met[name] = len(server.lines("NOT stored")) - failures
                eventually(
                    lambda: server.facts()["Waiting for the store"].startswith("0 "), f"all arrives after {name}"
                )
                time.sleep(INTERVAL_SECONDS)
            facts = server.facts()
        server.terminate()
    print(f"{users.answers} answers, slowest {users.slowest * 1000:.0f} ms; failed puts: {met}; {facts}")
    assert users.wrong == []
    assert users.answers > 100
    assert facts["Lost captures"] == "0"
    _check(store)
    assert server.lines("LOST") == server.lines("Traceback") == []
    # What only the operator can mend is explained once each time.
    for name, remedy in (("403", "allow s3:PutObject"), ("404", "create the bucket")):
        if name in met:
            assert len(server.lines(remedy)) == 1


def _check(store: FakeS3) -> None:
    """Every window once, after doubles have been dropped by capture id, and none missing in between."""
    ids = {put.key: put.headers["x-amz-meta-capture-id"] for put in store.requests}
    bodies: dict[str, set[bytes]] = {}
    started: dict[str, float] = {}
    for key, body in store.objects.items():
        read_pprof(body)
        bodies.setdefault(ids[key], set()).add(body)
        started[ids[key]] = Key.parse(key).started.timestamp()
    assert all(len(same) == 1 for same in bodies.values())
    times = sorted(started.values())
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    # The last one may have been cut short by the end; second by second, as keys have it.
    assert all(INTERVAL_SECONDS - 1 <= step <= INTERVAL_SECONDS + 1 for step in steps), steps
    expected = (times[-1] - times[0]) / INTERVAL_SECONDS + 1
    assert abs(len(times) - expected) <= 1, (len(times), expected)
