"""How an answer gets to an ASGI client that reads it slowly, or not at all: piece by piece, and for a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from profiling_middleware import limits
from profiling_middleware.middleware.messages import PIECE_BYTES, AdminResponse, Awaited, pieces

if TYPE_CHECKING:
    from starlette.types import Send


async def send_response(response: AdminResponse, send: Send) -> None:
    """Sends an answer at once; a client that reads none of what it asked for before is not waited for for ever."""
    with contextlib.suppress(OSError):  # a TimeoutError is one, too
        async with asyncio.timeout(limits.READ_SECONDS):
            await _send_whole(response, send)


async def send_capture(pending: Awaited, response: AdminResponse, send: Send, gone: asyncio.Future[None]) -> None:
    """Sends a capture until its client has it or, as `gone` tells, has left; or breaks it off after `READ_SECONDS`.

    What is broken off just ends: then servers close the connection, since the body is shorter than was said.
    """
    try:
        async with asyncio.timeout(limits.READ_SECONDS):
            if len(response.body) <= PIECE_BYTES:
                await _send_whole(response, send)
                return
            await send(_start(response))
            for piece in pieces(response.body):
                # A server whose transport takes it all does not wait; others of the loop, and `gone`, come first.
                await asyncio.sleep(0)
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
    except TimeoutError:
        pending.break_off()
    except OSError:
        return  # how ASGI says that the client has left


async def _send_whole(response: AdminResponse, send: Send) -> None:
    await send(_start(response))
    await send({"type": "http.response.body", "body": b"".join(pieces(response.body))})


def _start(response: AdminResponse) -> dict[str, object]:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.all_headers()]
    return {"type": "http.response.start", "status": response.status, "headers": headers}
