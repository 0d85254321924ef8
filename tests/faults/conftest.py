"""Fixtures of the tests of faults. They run a seeded slice; `scripts/full --faults` runs them whole."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# With --import-mode=importlib pytest adds no folder of tests to the path.
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from integration_kit.servers import Servers

from sample_app.s3_server import S3Server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="all there is, for many minutes, and not a slice")
    parser.addoption("--seed", type=int, help="does the same again")


@pytest.fixture(scope="session")
def whole(pytestconfig: pytest.Config) -> bool:
    """Whether there is time for all."""
    return bool(pytestconfig.getoption("--whole", default=False))


@pytest.fixture
def chance(pytestconfig: pytest.Config, whole: bool) -> random.Random:
    """Says its seed, which is always the same in a slice."""
    seed = pytestconfig.getoption("--seed", default=None)
    if seed is None:
        seed = random.randrange(1_000_000) if whole else 20261128
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Starts servers for one test."""
    with Servers(tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server, SeaweedFS."""
    with S3Server() as server:
        yield server
