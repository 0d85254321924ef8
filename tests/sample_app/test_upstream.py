"""The stand-in for a slow service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from sample_app.upstream import ask_upstream, slow_upstream

SECONDS = 0.02


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_who_asks_and_leaves_troubles_nobody(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    failures: list[dict[str, Any]] = []

    async def scenario() -> str:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        async with slow_upstream(SECONDS) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"stock?\n")
            writer.close()
            await writer.wait_closed()
            # Asked later, and so answered later.
            return await ask_upstream(port)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(scenario()) == "in stock"
    assert failures == []
