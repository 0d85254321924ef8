"""A service of several workers of which exactly one works: the first that locks the file TEST_APP_BURNER.

`one_burns:asgi` and `one_burns:wsgi`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from profiling_middleware import ProfilingMiddleware, WSGIProfilingMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)


def burn_cpu() -> None:
    """The hot function that the profiles must name."""
    number, end = 0, time.monotonic() + 0.05
    while time.monotonic() < end:
        for _ in range(2000):
            number = (number * 31 + 7) & 0xFFFF


def burn_if_first() -> None:
    lock = os.open(os.environ["TEST_APP_BURNER"], os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return
    Path(os.environ["TEST_APP_BURNER"]).write_text(str(os.getpid()))
    while True:
        burn_cpu()
        time.sleep(0.05)


def pid_and_threads() -> str:
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("profiling-")]
    return " ".join((str(os.getpid()), *names))


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(pid_and_threads())


def hello_wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = pid_and_threads().encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


asgi = Starlette(routes=[Route("/hello", hello)])
asgi.add_middleware(ProfilingMiddleware)
wsgi = WSGIProfilingMiddleware(hello_wsgi)
threading.Thread(target=burn_if_first, name="burner", daemon=True).start()
