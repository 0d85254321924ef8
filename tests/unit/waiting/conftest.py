"""A spool in a directory of the test's own, and other owners of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from profiling_middleware.private_directory import PrivateDirectory
from profiling_middleware.waiting.spool import Spool

# When the artifacts of `make_artifact` were captured, and a minute more.
NOW_NS = 1_769_441_460_000_000_000
KIBIBYTE = 1024

OpenSpool = Callable[..., Spool]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the spool is."""
    return tmp_path / "spool"


@pytest.fixture
def open_spool(place: Path) -> Iterator[OpenSpool]:
    """Opens the spool as one owner; all are closed at the end."""
    opened: list[Spool] = []

    def open_as(owner: str = "web-1-7-0a1b2c3d", max_bytes: int = 64 * KIBIBYTE, now_ns: int = NOW_NS) -> Spool:
        opened.append(Spool(PrivateDirectory(place), owner, max_bytes, lambda: now_ns))
        return opened[-1]

    yield open_as
    for spool in opened:
        spool.close()


@pytest.fixture
def names(place: Path) -> Callable[[], list[str]]:
    """What lies in the spool, but for locks."""
    return lambda: sorted(path.name for path in place.iterdir() if path.suffix != ".lock")
