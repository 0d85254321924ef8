"""S3 away, slow or refusing: the service goes on, the log says what to do, and the captures arrive when it is over."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from integration_kit.buckets import Bucket, Key
from integration_kit.fake_s3 import (
    ACCESS_DENIED,
    BAD_DIGEST,
    NO_SUCH_BUCKET,
    SLOW_DOWN,
    FakeS3,
    Fault,
    s3_settings,
    silent_port,
)
from integration_kit.http import bearer
from integration_kit.pprof import read_pprof
from integration_kit.servers import Servers
from integration_kit.waiting import eventually

from profiling_middleware.config import Settings
from profiling_middleware.model import Artifact, CaptureInfo
from profiling_middleware.profiler import Profiler
from profiling_middleware.stores.s3 import S3Store
from profiling_middleware.uploads import Uploads
from profiling_middleware.waiting.backlog import Backlog
from profiling_middleware.waiting.memory import MAX_BYTES, Memory

pytestmark = pytest.mark.server

NOT_STORED = re.compile(
    r"profiling: NOT stored kind=cpu key=(?P<key>profiles/shop/cpu/\S+) bytes=(?P<bytes>[1-9]\d*) "
    r"seconds=(?P<seconds>\d+\.\d+) in s3://profiles-of-tests: (?P<reason>.+); 1 captures \([\d.]+ K?i?B\) wait in "
    r"\S+/spool/shop-profiles-of-tests-\w+, next try in (?P<retry>\d+) s$"
)
TOKEN = "tell-nobody"
SLOWEST_SECONDS = 1.0
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Case:
    """What is wrong with the store, and the words that the operator must find in the log."""

    words: tuple[str, ...]
    fault: Fault | None = None
    explained_once: bool = False
    listening: bool = False
    """Without a fault: whether connections are accepted, which are then never answered, or refused."""


CASES = {
    "access denied": Case(("S3 answered 403 AccessDenied", "allow s3:PutObject on arn:aws:s3:::"), ACCESS_DENIED, True),
    "no bucket": Case(("S3 answered 404 NoSuchBucket", "create the bucket"), NO_SUCH_BUCKET, True),
    "slow down": Case(("S3 answered 503 SlowDown", "lengthen PROFILE_INTERVAL"), SLOW_DOWN),
    "bad digest": Case(("S3 answered 400 BadDigest", "the body was changed on its way"), BAD_DIGEST),
    "refused": Case(("S3 was not reached (EndpointConnectionError", "check the network, the endpoint and AWS_REGION")),
    "never answers": Case(("S3 was not reached (ReadTimeoutError", "check the network"), listening=True),
}


@dataclass(frozen=True)
class Outcome:
    """What was seen of one case."""

    slowest: float
    failures: list[str]
    during: dict[str, str]
    """The status page while the fault lasted."""
    after: dict[str, str]
    objects: dict[str, bytes]
    answer_status: int
    answered_in: float


class Scenario:
    """One service that is started into a fault, which ends when it has been noticed."""

    def __init__(self, case: Case, servers: Servers, running: ExitStack) -> None:
        self._case = case
        self._ending = running.enter_context(ExitStack())
        if case.fault is not None:
            self._store: FakeS3 | None = self._ending.enter_context(FakeS3(fault=case.fault))
            self._port = self._store.port
        else:
            self._store = None
            self._port = self._ending.enter_context(silent_port(listening=case.listening))
        settings = {
            **s3_settings(self._port),
            "PROFILE_ENABLED": "1",
            "PROFILE_INTERVAL": "10m",
            "PROFILE_DURATION": "1s",
            "PROFILE_TYPES": "cpu",
            "PROFILE_TOKEN": TOKEN,
        }
        self.server = servers.uvicorn(settings)

    def run(self) -> Outcome:
        """Watches the service until its window has arrived."""
        server = self.server
        token = bearer(TOKEN)
        slowest = 0.0

        def until(seen: Callable[[], object], what: str) -> None:
            nonlocal slowest

            def look() -> bool:
                nonlocal slowest
                slowest = max(slowest, server.get("/hello").seconds)
                return bool(seen())

            eventually(look, what, seconds=PATIENCE_SECONDS)

        until(lambda: server.facts(token)["Waiting for the store"].startswith("1 "), "the window is to be stored")
        # Who asks meanwhile gets an answer: it does not wait behind a put that hangs.
        asked = server.get("/debug/pprof/cpu?seconds=0.2&upload=0", headers=token)
        until(lambda: server.lines("NOT stored"), "the fault is in the log")
        during = server.facts(token)
        store = self._mended()
        until(lambda: server.lines("profiling: stored kind=cpu"), "the window arrives")
        return Outcome(
            slowest=slowest,
            failures=server.lines("NOT stored"),
            during=during,
            after=server.facts(token),
            objects=dict(store.objects),
            answer_status=asked.status,
            answered_in=asked.seconds,
        )

    def _mended(self) -> FakeS3:
        if self._store is not None:
            self._store.fault = None
            return self._store
        self._ending.close()
        return self._ending.enter_context(FakeS3(self._port))


@pytest.fixture(scope="module", autouse=True)
def outcomes(shared_servers: Servers) -> Iterator[dict[str, Future[Outcome]]]:
    """All cases at the same time, each with a service of its own, beside the other tests: they consist of waiting."""
    with ExitStack() as running:
        scenarios = {name: Scenario(case, shared_servers, running) for name, case in CASES.items()}
        pool = running.enter_context(ThreadPoolExecutor(len(scenarios)))
        yield {name: pool.submit(scenario.run) for name, scenario in scenarios.items()}
        for scenario in scenarios.values():
            scenario.server.kill()  # ends the scenarios that no test has waited for


# -- the real server ---------------------------------------------------------------------------------------------


@pytest.mark.s3
def test_a_wrong_secret_is_named(servers: Servers, bucket: Bucket) -> None:
    settings = bucket.settings(
        PROFILE_ENABLED="1", PROFILE_DURATION="1s", PROFILE_TYPES="cpu", AWS_SECRET_ACCESS_KEY="not the secret"
    )
    server = servers.uvicorn(settings)
    line = server.wait_for_log(r"NOT stored .*$")[0]
    assert "S3 answered 403 SignatureDoesNotMatch" in line
    assert "the secret key is wrong: give this process valid credentials" in line
    assert "not the secret" not in server.log


@pytest.mark.s3
def test_what_lies_there_already_is_not_replaced(servers: Servers, bucket: Bucket) -> None:
    # Whatever second the service starts in, somebody else was there before it.
    now = datetime.now(UTC)
    taken = [f"profiles/shop/cpu/{now + timedelta(seconds=n):%Y-%m-%d/%H-%M-%S}.pprof.gz" for n in range(60)]
    for key in taken:
        bucket.put(key, b"somebody else's")
    settings = bucket.settings(PROFILE_ENABLED="1", PROFILE_INTERVAL="2s", PROFILE_DURATION="1s", PROFILE_TYPES="cpu")
    server = servers.uvicorn(settings)
    keys = bucket.wait_for_keys(len(taken) + 2)
    assert {bucket.body(key) for key in taken} == {b"somebody else's"}
    for key in set(keys) - set(taken):
        profile = bucket.profile(key)
        assert Key.parse(key) == Key("shop", "cpu", profile.started, f"{profile.instance}-{profile.capture_id}")
    assert server.lines("NOT stored") == []


@pytest.mark.s3
def test_a_service_without_the_bucket_it_wants(servers: Servers, bucket: Bucket) -> None:
    settings = {**bucket.settings(PROFILE_ENABLED="1", PROFILE_DURATION="1s", PROFILE_TYPES="cpu")}
    settings["PROFILE_S3_BUCKET"] = "nobody-made-this"
    server = servers.uvicorn(settings)
    line = server.wait_for_log(r"NOT stored .*$")[0]
    assert "in s3://nobody-made-this-dev: S3 answered 404 NoSuchBucket" in line
    assert "create the bucket (infra/), or name yours in PROFILE_S3_BUCKET and PROFILE_ENVIRONMENT" in line


# -- what is sent ------------------------------------------------------------------------------------------------


def test_the_owner_of_the_bucket_is_checked_and_nothing_asked_but_a_put(servers: Servers) -> None:
    with FakeS3() as store:
        settings = {
            **store.settings(),
            "PROFILE_ENABLED": "1",
            "PROFILE_DURATION": "1s",
            "PROFILE_TYPES": "cpu,wall",
            "PROFILE_S3_BUCKET_OWNER": "123456789012",
        }
        server = servers.uvicorn(settings)
        assert server.url
        eventually(lambda: len(store.objects) == 2, "both kinds arrive")
        assert {put.method for put in store.requests} == {"PUT"}
        for put in store.requests:
            assert put.headers["x-amz-expected-bucket-owner"] == "123456789012"
            assert put.headers["if-none-match"] == "*"
            # Each of these would need a permission of its own.
            forbidden = ("x-amz-acl", "x-amz-tagging", "x-amz-grant", "x-amz-server-side", "x-amz-storage-class")
            assert [name for name in put.headers if name.startswith(forbidden)] == []
        server.kill()


def test_an_answer_that_is_lost_loses_nothing(servers: Servers) -> None:
    with FakeS3() as store:
        store.lose_answers = 2
        settings = {
            **store.settings(),
            "PROFILE_ENABLED": "1",
            "PROFILE_INTERVAL": "10m",
            "PROFILE_DURATION": "1s",
            "PROFILE_TYPES": "cpu",
            "PROFILE_TOKEN": TOKEN,
        }
        server = servers.uvicorn(settings)
        token = bearer(TOKEN)
        # The window: boto3 asks again and finds the key taken, by itself; then the same under the second key.
        server.wait_for_log("profiling: stored kind=cpu")
        assert len({read_pprof(body).capture_id for body in store.objects.values()}) == 1
        # On demand there is one key only, and "taken" can mean nothing else.
        store.lose_answers = 1
        answer = server.get("/debug/pprof/cpu?seconds=0.2", headers=token)
        key = answer.headers["X-Profile-Key"]
        server.wait_for_log(f"profiling: stored kind=cpu key={key} ")
        assert store.objects[key] == answer.body
        facts = server.facts(token)
        assert (facts["Lost captures"], facts["Failed uploads"]) == ("0", "0")
        assert facts["Stored"].startswith("2 captures, ")
        server.kill()


# -- bounds ------------------------------------------------------------------------------------------------------


def test_memory_is_bounded_the_newest_stay_and_arrive(caplog: pytest.LogCaptureFixture) -> None:
    """With the real store, S3Store, and captures of a megabyte each."""
    retries: list[Callable[[], object]] = []
    logger = logging.getLogger("test_s3_faults.memory")
    with FakeS3(fault=SLOW_DOWN) as store, pytest.MonkeyPatch.context() as environ:
        for name, value in store.settings().items():
            environ.setenv(name, value)
        uploads = Uploads(
            S3Store("profiles-of-tests", None),
            Backlog(None, Memory(), logger),
            logger,
            lambda _, action: retries.append(action),
        )
        artifacts = [_artifact(number, size=1_000_000) for number in range(40)]
        with caplog.at_level(logging.INFO, logger.name):
            for artifact in artifacts:
                uploads.add(artifact)
                assert uploads.waiting[1] <= MAX_BYTES + 1_000_000  # the one that is being put
            eventually(lambda: retries, "a round has failed")
            kept = MAX_BYTES // 1_000_000
            assert uploads.waiting == (kept, kept * 1_000_000)
            assert uploads.counts.dropped == 40 - kept
            store.fault = None
            retries.pop()()
            eventually(lambda: uploads.counts.stored == kept, "what was kept arrives")
        assert sorted(store.objects) == sorted(artifact.key for artifact in artifacts[-kept:])
        lost = [record.getMessage() for record in caplog.records if "LOST" in record.getMessage()]
        # The first one was being put, and went when it came back.
        assert sorted(line.partition("key=")[2].partition(" ")[0] for line in lost) == [
            artifact.key for artifact in artifacts[:-kept]
        ]
        uploads.finish(5)


def _artifact(number: int, size: int) -> Artifact:
    started = 1_767_225_600_000_000_000 + number * 1_000_000_000
    info = CaptureInfo(
        kind="cpu", service="shop", instance="host", capture_id=str(number), started_ns=started, trigger="periodic"
    )
    name = f"profiles/shop/cpu/2026-01-01/00-00-{number:02}"
    return Artifact(info=info, key=f"{name}.pprof.gz", own_key=f"{name}_host-{number}.pprof.gz", body=b"x" * size)


def test_the_service_ends_in_time_when_s3_does_not_answer() -> None:
    with silent_port(listening=True) as port, pytest.MonkeyPatch.context() as environ:
        for name, value in s3_settings(port).items():
            environ.setenv(name, value)
        settings = replace(Settings.from_env(), enabled=True, types=("cpu",), duration=120.0)
        profiler = Profiler(settings)
        profiler.start()
        with contextlib.suppress(Exception):
            profiler.capture("cpu", 0.2)
        started = time.monotonic()
        profiler.stop(timeout=1.5)
        assert time.monotonic() - started < 2.5
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("profiling-timer")] == []


# -- the faults ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_explained_and_survived(name: str, outcomes: dict[str, Future[Outcome]]) -> None:
    """Last, because they take their time."""
    _check(CASES[name], outcomes[name].result())


def _check(case: Case, outcome: Outcome) -> None:
    assert outcome.slowest < SLOWEST_SECONDS
    assert (outcome.answer_status, outcome.answered_in < 0.2 + SLOWEST_SECONDS) == (200, True)
    # One line a failure, in which everything is said.
    assert len(outcome.failures) == int(outcome.after["Failed uploads"])
    for line in outcome.failures:
        match = NOT_STORED.search(line)
        assert match, line
        again = match["reason"].endswith(", as before")
        for words in case.words[:1] if again else case.words:
            assert words in match["reason"]
    # What only the operator can mend is explained once.
    assert sum(case.words[-1] in line for line in outcome.failures) == (
        1 if case.explained_once else len(outcome.failures)
    )
    assert outcome.during["Waiting for the store"].startswith("1 captures, ")
    assert outcome.during["Stored"].startswith("0 captures")
    assert case.words[0] in outcome.during["Last failure"]
    # Nothing was lost, and it lies where the log first wanted to put it.
    (key,) = outcome.objects
    first = NOT_STORED.search(outcome.failures[0])
    assert first is not None
    assert key == first["key"] == outcome.after["Last key"]
    assert len(outcome.objects[key]) == int(first["bytes"])
    assert read_pprof(outcome.objects[key]).started == Key.parse(key).started
    assert outcome.after["Waiting for the store"] == "0 captures, 0 B"
    assert outcome.after["Stored"].startswith("1 captures, ")
    assert outcome.after["Lost captures"] == "0"
