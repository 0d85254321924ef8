"""Fixtures of the integration tests: real servers on 127.0.0.1, each ended with the test or module that started it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

# With --import-mode=importlib pytest adds no folder of tests to the path.
sys.path.insert(0, str(Path(__file__).parent))

from integration_kit.buckets import Bucket
from integration_kit.fake_s3 import s3_settings, silent_port
from integration_kit.go import PROGRAMS, Go
from integration_kit.servers import Servers
from integration_kit.tools import need_file

from sample_app.s3_server import S3Server


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("PROFILE_", "AWS_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def toolchains(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[dict[str, Go]]:
    """Every Go that is installed, if a test needs one. From the first test on: until it can run pprof takes a while."""
    found = {}
    if any("go" in getattr(item, "fixturenames", ()) for item in request.session.items):
        for name, (program, _) in PROGRAMS.items():
            if program.is_file():
                home = tmp_path_factory.mktemp("go")
                cache = getattr(pytestconfig, "cache", None)
                found[name] = Go(program, home, cache.mkdir(f"go-build-{name}") if cache else home)
    yield found
    for go in found.values():
        go.stop()


@pytest.fixture(scope="module", params=PROGRAMS)
def go(request: pytest.FixtureRequest, toolchains: dict[str, Go]) -> Go:
    """One after the other."""
    need_file(*PROGRAMS[request.param])
    return toolchains[request.param]


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server, SeaweedFS."""
    with S3Server() as server:
        yield server


@pytest.fixture(scope="session")
def new_bucket(s3: S3Server) -> Callable[[], Bucket]:
    """Makes empty buckets."""
    client, numbers = s3.client(), itertools.count(1)
    # The name ends as PROFILE_ENVIRONMENT=dev demands, so nothing is added to it.
    return lambda: Bucket(s3, client, f"bucket-{next(numbers)}-dev")


@pytest.fixture
def bucket(new_bucket: Callable[[], Bucket]) -> Bucket:
    """An empty bucket for one test."""
    return new_bucket()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Starts servers for one test."""
    with Servers(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def shared_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Starts servers for the tests of one module."""
    with Servers(tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture
def side_by_side() -> Iterator[ThreadPoolExecutor]:
    """Does several things at once."""
    with ThreadPoolExecutor(64) as pool:
        yield pool


@pytest.fixture
def silent_s3() -> Iterator[dict[str, str]]:
    """The settings of a service whose store accepts connections and never answers."""
    with silent_port(listening=True) as port:
        yield s3_settings(port)
