"""How an ASGI client is answered, that may leave, read slowly or not at all: piece by piece, and for a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from profiling_middleware import limits
from profiling_middleware.middleware.messages import (
    PIECE_BYTES,
    AdminRequest,
    AdminResponse,
    Awaited,
    not_readable,
    pieces,
)
from profiling_middleware.middleware.paths import root_path, route_path

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from profiling_middleware.middleware.admin import Admin


async def answer(admin: Admin, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request to the routes."""
    answered = _asked(admin, scope)
    if isinstance(answered, AdminResponse):
        await send_response(answered, send)
    else:
        await _answer_capture(answered, receive, send)


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


def _asked(admin: Admin, scope: Scope) -> AdminResponse | Awaited:
    try:
        request = _request(scope)
    except Exception as unreadable:
        return not_readable(unreadable)
    return admin.answer(request)


def _end(given: object) -> tuple[str | None, int | None]:
    """Address and port of one end of the connection, None where the server does not say, as of a unix socket."""
    address, port = given if isinstance(given, list | tuple) and len(given) == 2 else (None, None)
    return address if isinstance(address, str) else None, port if isinstance(port, int) else None


def _request(scope: Scope) -> AdminRequest:
    peer, peer_port = _end(scope.get("client"))
    return AdminRequest(
        method=str(scope.get("method")),
        path=route_path(scope),
        root=root_path(scope),
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=[(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope.get("headers", ())],
        peer=peer,
        peer_port=peer_port,
        own_port=_end(scope.get("server"))[1],
        http_version=str(scope.get("http_version", "")),
        can_wait=True,
    )


async def _answer_capture(pending: Awaited, receive: Receive, send: Send) -> None:
    """Waits for the capture and sends it. When the client leaves before, nothing goes on."""
    result = asyncio.wrap_future(pending.result)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            await send_capture(pending, pending.response(), send, gone)
    finally:
        pending.close()
        if not result.done():
            pending.cancel()
        # Cancelled even if done: nobody else will look at what became of them.
        for waiting in (result, gone):
            if not waiting.cancel() and not waiting.cancelled():
                waiting.exception()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
