"""A buffer, and the extension's hooks where they are to be had."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

# With --import-mode=importlib pytest adds no folder of tests to the path.
sys.path.insert(0, str(Path(__file__).parent))

from profiling_middleware.tracing.buffer import TraceBuffer
from profiling_middleware.tracing.steps import LoopSteps

HANDLE_RUN: Any = asyncio.Handle._run


@pytest.fixture
def buffer() -> TraceBuffer:
    return TraceBuffer()


@pytest.fixture
def native(need_native: Callable[[], None]) -> Iterator[Any]:
    """The extension, which tells nobody anything any more after the test."""
    need_native()
    from profiling_middleware.sampling import _native

    yield _native
    _native.leave_steps()


class Way:
    """How steps of tasks come to be known: by the extension's hooks or without them, and on which loop."""

    def __init__(self, hooks: Any, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.hooks, self.new_loop = hooks, new_loop
        self.steps = LoopSteps(lambda: hooks)

    @property
    def hooked(self) -> bool:
        return self.hooks is not None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """As asyncio.run(), without tasks of its own."""
        loop = self.new_loop()
        try:
            return loop.run_until_complete(coroutine)
        finally:
            loop.close()


@pytest.fixture(params=["asyncio hooked", "uvloop hooked", "asyncio"])
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """Each in turn; all is put back after the test."""
    new_loop = uvloop.new_event_loop if "uvloop" in request.param else asyncio.new_event_loop
    way = Way(request.getfixturevalue("native") if "hooked" in request.param else None, new_loop)
    yield way
    way.steps.stop()
    assert asyncio.Handle._run is HANDLE_RUN


@pytest.fixture
def hooked(native: Any) -> Iterator[Way]:
    """On asyncio's own loop with the extension."""
    way = Way(native, asyncio.new_event_loop)
    yield way
    way.steps.stop()


@pytest.fixture
def unhooked() -> Iterator[Way]:
    """On asyncio's own loop without it."""
    way = Way(None, asyncio.new_event_loop)
    yield way
    way.steps.stop()
