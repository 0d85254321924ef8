"""A Starlette service that notes by itself what a trace of it has to show; its settings are its environment's.

All its times are nanoseconds of the monotonic clock.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import gc
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic_ns
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from profiling_middleware import ProfilingMiddleware

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
logging.getLogger("botocore").setLevel(logging.WARNING)

STALL_SECONDS, LOCKED_SECONDS, SLOW_SECONDS = 0.15, 0.03, 0.4
CYCLES, CONTENDERS = 200_000, 5
_PLACES: dict[str, tuple[Any, str]] = {
    "Handle._run": (asyncio.events.Handle, "_run"),
    "_WorkItem.__init__": (concurrent.futures.thread._WorkItem, "__init__"),
    "_WorkItem.run": (concurrent.futures.thread._WorkItem, "run"),
    "anyio.to_thread.run_sync": (anyio.to_thread, "run_sync"),
}
_ORIGINALS = {name: getattr(*place) for name, place in _PLACES.items()}

noted: dict[str, list[Any]] = {
    kind: [] for kind in ("requests", "bursts", "stalls", "locks", "async locks", "collections")
}
the_lock, the_barrier = threading.Lock(), threading.Barrier(CONTENDERS, timeout=20)
the_async_lock: asyncio.Lock
the_async_barrier: asyncio.Barrier


def replaced() -> list[str]:
    """What is not as it was before the first trace, in this process."""
    names = [name for name, place in _PLACES.items() if getattr(*place) is not _ORIGINALS[name]]
    others = [call for call in gc.callbacks if (getattr(call, "__module__", "") or "").startswith("profiling_")]
    return names + ["gc.callbacks"] * len(others)


class Noting:
    """Directly within the profiler's middleware: when each request begins and ends, and what the server answers by."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def seeing(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        scope["answers by"] = send.__qualname__
        began = monotonic_ns()
        try:
            await self.app(scope, receive, seeing)
        finally:
            ended = monotonic_ns()
            route = getattr(scope.get("route"), "path", "")
            noted["requests"].append((scope["path"], route, status or 500, began, ended))


def burn_cpu(seconds: float) -> int:
    """The hot function that samples must name."""
    number, end = 0, monotonic_ns() + int(seconds * 1e9)
    while monotonic_ns() < end:
        for _ in range(200):
            number = (number * 31 + 7) & 0xFFFF
    return number


async def work(request: Request) -> PlainTextResponse:
    """Sleeps, then burns a known time in a step of its own."""
    number = request.path_params["number"]
    await asyncio.sleep(float(request.query_params.get("sleep", 0)))
    await burst(number, float(request.query_params.get("burn", 0)))
    return PlainTextResponse("done", status_code=418 if number % 7 == 0 else 200)


async def burst(number: int, seconds: float) -> None:
    await asyncio.sleep(0)
    began = monotonic_ns()
    burn_cpu(seconds)
    noted["bursts"].append((number, began, monotonic_ns()))
    await asyncio.sleep(0)


def thread(request: Request) -> PlainTextResponse:
    """Sleeps and burns in the thread pool."""
    time.sleep(float(request.query_params.get("sleep", 0)))
    burn_cpu(float(request.query_params.get("burn", 0)))
    return PlainTextResponse("done")


async def stall(request: Request) -> PlainTextResponse:
    seconds = float(request.query_params.get("seconds", STALL_SECONDS))
    await asyncio.sleep(0)
    began = monotonic_ns()
    time.sleep(seconds)  # noqa: ASYNC251 - the stall
    noted["stalls"].append((began, monotonic_ns()))
    await asyncio.sleep(0)
    return PlainTextResponse("done")


async def later(request: Request) -> PlainTextResponse:
    """The loop is held up by a callback after the answer, when no request is there."""
    seconds = float(request.query_params["seconds"])
    asyncio.get_running_loop().call_later(0.1, asyncio.create_task, hold_up(seconds))
    return PlainTextResponse("done")


async def hold_up(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - as it should not


def locked(request: Request) -> PlainTextResponse:
    """Holds a lock that the others ask for at the same time."""
    the_barrier.wait()
    asked = monotonic_ns()
    with the_lock:
        noted["locks"].append((threading.get_native_id(), asked, monotonic_ns()))
        time.sleep(LOCKED_SECONDS)
    return PlainTextResponse("done")


async def async_locked(request: Request) -> PlainTextResponse:
    await the_async_barrier.wait()
    asked = monotonic_ns()
    async with the_async_lock:
        noted["async locks"].append((None, asked, monotonic_ns()))
        await asyncio.sleep(LOCKED_SECONDS)
    return PlainTextResponse("done")


def collect(request: Request) -> PlainTextResponse:
    gc.disable()
    for _ in range(CYCLES):
        cycle: list[Any] = []
        cycle.append(cycle)
    began = monotonic_ns()
    found = gc.collect()
    noted["collections"].append((threading.get_native_id(), found, began, monotonic_ns()))
    gc.enable()
    return PlainTextResponse("done")


async def slow(request: Request) -> PlainTextResponse:
    await asyncio.sleep(float(request.query_params.get("seconds", SLOW_SECONDS)))
    return PlainTextResponse("slow", status_code=203)


async def socket(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


async def fail(request: Request) -> PlainTextResponse:
    raise RuntimeError("as you wish")


async def storm(request: Request) -> PlainTextResponse:
    """Tasks with names that cannot be compressed."""
    for _ in range(int(request.query_params["times"])):
        tasks = [asyncio.create_task(asyncio.sleep(0), name=secrets.token_hex(400)) for _ in range(500)]
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.05)
    return PlainTextResponse("done")


def snapshot(request: Request) -> JSONResponse:
    # Here, since a service without profiling does not load it.
    from profiling_middleware import Profiler, Settings

    profiler = Profiler.shared(Settings.from_env())
    try:
        artifact = profiler.snapshot_trace(**{name: float(text) for name, text in request.query_params.items()})
    except ValueError as error:
        return JSONResponse({"refused": str(error)})
    return JSONResponse({"key": artifact.key, "bytes": len(artifact.read())})


def fork(request: Request) -> JSONResponse:
    """What is replaced in a child, and whether its event loop and its executor work."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _child(writing)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = json.loads(pipe.read())
    _, code = os.waitpid(pid, 0)
    return JSONResponse({"pid": pid, "code": code, **told})


def _child(writing: int) -> None:
    names = replaced()
    asyncio.events._set_running_loop(None)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        worked = pool.submit(sum, range(10)).result(10) == 45
    gc.collect()
    asyncio.run(burst(0, 0.01))
    os.write(writing, json.dumps({"replaced": names, "worked": worked, "then": replaced()}).encode())


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def state(request: Request) -> JSONResponse:
    return JSONResponse(
        {
            "pid": os.getpid(),
            "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
            "replaced": replaced(),
            "answers by": request.scope["answers by"],
            "threads": [one.name for one in threading.enumerate()],
            "now": monotonic_ns(),
            "memory": memory(),
        }
    )


async def notes(request: Request) -> JSONResponse:
    return JSONResponse({"pid": os.getpid(), **noted})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    global the_async_lock, the_async_barrier
    the_async_lock, the_async_barrier = asyncio.Lock(), asyncio.Barrier(CONTENDERS)
    await run_in_threadpool(monotonic_ns)  # so that a worker thread is there
    yield


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/work/{number:int}", work),
        Route("/thread/{number:int}", thread),
        Route("/stall", stall),
        Route("/later", later),
        Route("/locked", locked),
        Route("/async-locked", async_locked),
        Route("/collect", collect),
        Route("/slow", slow),
        WebSocketRoute("/socket", socket),
        Route("/fail", fail),
        Route("/storm", storm),
        Route("/snapshot", snapshot),
        Route("/fork", fork),
        Route("/state", state),
        Route("/threads", state),
        Route("/notes", notes),
    ],
)
app.add_middleware(Noting)
app.add_middleware(ProfilingMiddleware)
