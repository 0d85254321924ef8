"""A slow service that the sample service depends on: a stand-in on loopback, and the client for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def slow_upstream(seconds: float = 0.08) -> AsyncIterator[int]:
    """Run the stand-in on a free port of 127.0.0.1; the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readline()
            await asyncio.sleep(seconds)
            writer.write(b"in stock\n")
            await writer.drain()
        except ConnectionError:
            pass  # The one who asked has gone; there is nobody left to tell.
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
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
