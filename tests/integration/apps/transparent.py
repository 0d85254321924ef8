"""A service of everything that a middleware could spoil; with TEST_PLAIN=1 it has none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from profiling_middleware import ProfilingMiddleware


def note(*words: object) -> None:
    print("note:", *words, flush=True)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    note("startup")
    if os.environ.get("TEST_FAIL") == "startup":
        raise RuntimeError("startup fails")
    yield {"greeting": "hello"}
    note("shutdown")
    if os.environ.get("TEST_FAIL") == "shutdown":
        raise RuntimeError("shutdown fails")


async def echo(socket: WebSocket) -> None:
    await socket.accept(subprotocol="chat", headers=[(b"x-extra", b"1")])
    async for text in socket.iter_text():
        if text == "close":
            await socket.close(4001, "as you wish")
            return
        if text == "fail":
            raise RuntimeError("as you wish")
        await socket.send_text(text[::-1])
    note("websocket disconnected")


async def reject(socket: WebSocket) -> None:
    await socket.close(4003)


async def deny(socket: WebSocket) -> None:
    await socket.send_denial_response(PlainTextResponse("no", status_code=418))


async def greeting(request: Request) -> Response:
    return PlainTextResponse(request.state.greeting)


async def body(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def stream(request: Request) -> Response:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d " % number
            await asyncio.sleep(0.01)

    return StreamingResponse(numbers(), background=BackgroundTask(note, "background of stream"))


async def endless(request: Request) -> Response:
    async def numbers() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 10_000
                await asyncio.sleep(0.01)
        finally:
            note("endless was ended")

    return StreamingResponse(numbers())


async def fail(request: Request) -> Response:
    raise RuntimeError("before the response")


async def fail_late(request: Request) -> Response:
    async def numbers() -> AsyncIterator[bytes]:
        yield b"a beginning"
        raise RuntimeError("after the start of the response")

    return StreamingResponse(numbers())


app = Starlette(
    lifespan=lifespan,
    routes=[
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/reject", reject),
        WebSocketRoute("/deny", deny),
        Route("/greeting", greeting),
        Route("/body", body, methods=["POST"]),
        Route("/stream", stream),
        Route("/endless", endless),
        Route("/fail", fail),
        Route("/fail-late", fail_late),
    ],
)
if os.environ.get("TEST_PLAIN") != "1":
    app.add_middleware(ProfilingMiddleware)
