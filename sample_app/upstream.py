"""A slow service that the sample service depends on: a stand-in on loopback, and the client for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast


class _StandIn(asyncio.Protocol):
    """Answers each question after a while. It has no task: one that waits would be in the profiles of who asks."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._seconds, self._answer)

    def _answer(self) -> None:
        # Who asked may have gone; then there is nobody left to tell, and uvloop raises.
        if not self._transport.is_closing():
            self._transport.write(b"in stock\n")
            self._transport.close()


@asynccontextmanager
async def slow_upstream(seconds: float = 0.3) -> AsyncIterator[int]:
    """Run the stand-in on a free port of 127.0.0.1; the port."""
    server = await asyncio.get_running_loop().create_server(lambda: _StandIn(seconds), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask_upstream(port: int) -> str:
    """Ask the stand-in, and wait for its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"stock?\n")
        await writer.drain()
        return (await reader.readline()).decode().strip()
    finally:
        writer.close()
        await writer.wait_closed()
