"""What a service does: an application of each protocol, whose answers must not depend on whether it is profiled."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

from flask import Flask
from flask import Response as FlaskResponse
from flask import request as flask_request
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket


def asgi_application(notes: list[str]) -> Starlette:
    """Notes what happens besides its answers."""

    async def plain(request: Request) -> Response:
        return PlainTextResponse("plain", headers={"x-one": "1"})

    async def item(request: Request) -> Response:
        return JSONResponse({"item": request.path_params["item"], "path": request.url.path})

    def in_a_thread(request: Request) -> Response:
        return PlainTextResponse(f"in a thread: {sum(range(2000))}")

    async def echo(request: Request) -> Response:
        return Response(await request.body(), media_type="application/octet-stream")

    async def stream(request: Request) -> Response:
        async def numbers() -> AsyncIterator[bytes]:
            for number in range(3):
                yield b"%d " % number
                await asyncio.sleep(0.001)

        return StreamingResponse(numbers(), background=BackgroundTask(notes.append, "background"))

    async def endless(request: Request) -> Response:
        async def numbers() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.Event().wait()

        return StreamingResponse(numbers())

    async def fail(request: Request) -> Response:
        raise ValueError("the application's own")

    async def fail_late(request: Request) -> Response:
        async def numbers() -> AsyncIterator[bytes]:
            yield b"a beginning"
            raise ValueError("the application's own, later")

        return StreamingResponse(numbers())

    async def talk(socket: WebSocket) -> None:
        await socket.accept(subprotocol="chat")
        async for text in socket.iter_text():
            await socket.send_text(text[::-1])

    async def locks(request: Request) -> Response:
        return JSONResponse(await _use_locks())

    async def threads(request: Request) -> Response:
        return JSONResponse(await _use_threads())

    async def fork(request: Request) -> Response:
        return PlainTextResponse(str(_fork()))

    paths = {
        "/plain": plain,
        "/items/{item}": item,
        "/in-a-thread": in_a_thread,
        "/stream": stream,
        "/endless": endless,
    }
    more = {"/fail": fail, "/fail-late": fail_late, "/locks": locks, "/threads": threads, "/fork": fork}
    routes = [Route(path, endpoint) for path, endpoint in (paths | more).items()]
    mount = Mount("/mounted", routes=[Route("/debug/pprof/{item}", item)])
    return Starlette(routes=[*routes, Route("/echo", echo, methods=["POST"]), WebSocketRoute("/talk", talk), mount])


async def _use_locks() -> list[object]:
    """Every lock of asyncio's, each waited for."""
    lock, semaphore, event, queue = asyncio.Lock(), asyncio.Semaphore(1), asyncio.Event(), asyncio.Queue[int](1)
    condition, done = asyncio.Condition(), list[object]()

    async def work(number: int) -> None:
        async with lock:
            await asyncio.sleep(0.001)
        async with semaphore:
            await asyncio.sleep(0.001)
        await event.wait()
        async with condition:
            condition.notify_all()
        done.append(number)

    async def put() -> None:
        for number in range(3):
            await queue.put(number)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(work(number), name=f"work {number}")
        group.create_task(put())
        async with condition:
            group.create_task(_set_soon(event))
            await asyncio.wait_for(condition.wait(), 5)
        done.append([await queue.get() for _ in range(3)])
    cancelled = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    cancelled.cancel()
    done += await asyncio.gather(asyncio.shield(asyncio.sleep(0, "shielded")), return_exceptions=True)
    done.append(type((await asyncio.gather(cancelled, return_exceptions=True))[0]).__name__)
    return sorted(done, key=str)


async def _set_soon(event: asyncio.Event) -> None:
    await asyncio.sleep(0.001)
    event.set()


async def _use_threads() -> list[object]:
    """Executors, threads, and locks between them."""
    loop, lock = asyncio.get_running_loop(), threading.Lock()

    def work(number: int) -> int:
        with lock:
            return sum(range(10_000)) + number

    def fail() -> None:
        raise ValueError("at work")

    own = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in own:
        thread.start()
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(work, number) for number in range(4)]
        failed = pool.submit(fail)
        inside = await asyncio.gather(*(loop.run_in_executor(pool, work, number) for number in range(2)))
    for thread in own:
        thread.join()
    gc.collect()
    gc.collect(0)
    outside = await asyncio.to_thread(work, 7)
    return [*(future.result() for future in futures), str(failed.exception()), *inside, outside]


def _fork() -> int:
    """What a child that does a little answers with."""
    child = os.fork()
    if child == 0:
        answer = 1
        try:
            thread = threading.Thread(target=sum, args=([1, 2],))
            thread.start()
            thread.join()
            answer = 7
        finally:
            os._exit(answer)
    deadline = time.monotonic() + 10
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        time.sleep(0.001)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGABRT)  # faulthandler says where it hangs
            ended = os.waitpid(child, 0)
            break
    return os.waitstatus_to_exitcode(ended[1])


def wsgi_application() -> Flask:
    """The counterpart in Flask."""
    app = Flask(__name__)
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.get("/plain")
    def plain() -> FlaskResponse:
        return FlaskResponse("plain", headers={"x-one": "1"})

    @app.get("/items/<item>")
    def item(item: str) -> dict[str, str]:
        return {"item": item, "path": flask_request.path}

    @app.post("/echo")
    def echo() -> bytes:
        return flask_request.get_data()

    @app.get("/stream")
    def stream() -> Iterator[str]:
        for number in range(3):
            yield f"{number} "

    @app.get("/fail-late")
    def fail_late() -> FlaskResponse:
        def numbers() -> Iterator[str]:
            yield "a beginning"
            raise ValueError("the application's own, later")

        return FlaskResponse(numbers())

    @app.get("/fail")
    def fail() -> str:
        raise ValueError("the application's own")

    @app.get("/mounted/debug/pprof/<item>")
    def mounted(item: str) -> str:
        return item

    return app
