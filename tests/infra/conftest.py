"""Fixtures of the tests of the infrastructure: a moto server, and Terraform where there is one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# With --import-mode=importlib pytest adds no folder of tests to the path.
sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
sys.path.insert(0, str(Path(__file__).parent))

from infra_kit.terraform import Terraform
from integration_kit.moto import Moto
from integration_kit.servers import Servers


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("PROFILE_", "AWS_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Starts servers for one test."""
    with Servers(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """AWS, as far as moto is that; empty at the start of a module."""
    with Servers(tmp_path_factory.mktemp("servers")) as running:
        yield Moto.start(running)


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory, moto: Moto) -> Terraform:
    """Terraform on a copy of infra/ of the module's own."""
    return Terraform.in_copy(tmp_path_factory.mktemp("terraform") / "infra", moto.endpoint)
