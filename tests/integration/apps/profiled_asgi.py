"""A Starlette service with nothing but `add_middleware(ProfilingMiddleware)`; its settings are its environment's."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from profiling_middleware import ProfilingMiddleware

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
logging.getLogger("botocore").setLevel(logging.WARNING)

LAZY_MODULES = ("boto3", "botocore", "pyinstrument", "profiling_middleware.profiler")


def burn_cpu(seconds: float) -> int:
    """The hot function that the profiles must name."""
    number, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(2000):
            number = (number * 31 + 7) & 0xFFFF
    return number


def burn_half_of_a_core() -> None:
    """Bursts that are long beside the interpreter's switch interval, so that they are seen running."""
    while True:
        burn_cpu(0.2)
        time.sleep(0.2)


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def threads(request: Request) -> JSONResponse:
    return JSONResponse(
        {
            "threads": [thread.name for thread in threading.enumerate()],
            "modules": [name for name in LAZY_MODULES if name in sys.modules],
            "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
        }
    )


def burn(request: Request) -> PlainTextResponse:
    burn_cpu(float(request.query_params["seconds"]))
    return PlainTextResponse("burnt")


app = Starlette(routes=[Route("/hello", hello), Route("/threads", threads), Route("/burn", burn)])
app.add_middleware(ProfilingMiddleware)

if os.environ.get("TEST_APP_BURNS") == "1":
    threading.Thread(target=burn_half_of_a_core, name="burner", daemon=True).start()
