"""Engines, each closed with the test that has it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# With --import-mode=importlib pytest adds no folder of tests to the path.
sys.path.insert(0, str(Path(__file__).parent))

from profiling_middleware.config import Settings
from profiling_middleware.sampling import make_engine
from profiling_middleware.sampling.engine import Engine

OpenEngine = Callable[..., Engine]


@pytest.fixture
def open_engine(need_native: Callable[[], None]) -> Iterator[OpenEngine]:
    """Makes the engine of a name, with other settings replaced by name; skips where it is not to be had."""
    made: list[Engine] = []

    def open_(name: str, *, max_overhead: float = 1.0, sample_rate: int = 100) -> Engine:
        if name in ("native", "polling"):
            need_native()
        settings = Settings(engine=name, max_overhead=max_overhead, sample_rate=sample_rate)  # type: ignore[arg-type]
        made.append(make_engine(settings))
        return made[-1]

    yield open_
    for engine in made:
        engine.close()


@pytest.fixture(params=["native", "polling", "python"])
def engine(request: pytest.FixtureRequest, open_engine: OpenEngine) -> Engine:
    """Each of the engines in turn."""
    return open_engine(request.param)


@pytest.fixture(params=["native", "polling"])
def native_engine(request: pytest.FixtureRequest, open_engine: OpenEngine) -> Engine:
    """Both kinds of the native engine in turn."""
    return open_engine(request.param)
