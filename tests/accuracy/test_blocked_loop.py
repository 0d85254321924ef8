"""An event loop that a callback blocks: the profile says where."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="exact only with Linux's clocks")

MS = 1_000_000


def lines_of(function: Any) -> range:
    """The lines of a function, that of its `def` first."""
    assert isinstance(function, FunctionType)
    lines = [line for _, _, line in function.__code__.co_lines() if line]
    return range(min(lines), max(lines) + 1)


def on_the_loop(worker: Any, callback: Callable[[], object]) -> None:
    """Has an event loop call `callback` between two callbacks that do nothing."""

    async def serve() -> None:
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0.01)

    worker.tell(lambda: asyncio.run(serve()))


def test_work_that_blocks_an_event_loop_shows_with_its_lines(camera: Any, make_worker: Callable[..., Any]) -> None:
    def price_everything() -> None:
        until = time.thread_time() + 0.5
        while time.thread_time() < until:
            sum(range(200))

    worker = make_worker()
    capture = camera.begin("cpu")
    on_the_loop(worker, price_everything)
    camera.look_until(worker.wait)
    taken = camera.end(capture)

    loop = lines_of(price_everything)[2:]
    assert taken.total(worker.native_id, "price_everything", lines=loop, placed=True) >= 0.75 * worker.used_ns[0]


def test_sleep_that_blocks_an_event_loop_shows_with_its_line(camera: Any, make_worker: Callable[..., Any]) -> None:
    def ask_the_warehouse() -> None:
        json.dumps([])
        time.sleep(0.5)
        json.dumps([])

    worker = make_worker()
    capture = camera.begin("wall")
    on_the_loop(worker, ask_the_warehouse)
    camera.look_until(worker.wait)
    taken = camera.end(capture)

    sleep = lines_of(ask_the_warehouse)[2:3]
    assert taken.total(worker.native_id, "ask_the_warehouse", lines=sleep) >= 400 * MS
