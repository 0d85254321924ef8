"""A Flask service that notes by itself what a trace of it has to show; its settings are its environment's."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, abort, request, stream_with_context

from profiling_middleware import WSGIProfilingMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
logging.getLogger("botocore").setLevel(logging.WARNING)

noted: list[tuple[str, int, int, int, int]] = []


class Noting:
    """Directly within the profiler's middleware: in which thread each request begins and ends, and when."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status = 0

        def seeing(line: str, *rest: Any) -> Any:
            nonlocal status
            status = int(line[:3])
            return start_response(line, *rest)

        began = monotonic_ns()
        body = [b"".join(self.app(environ, seeing))]
        noted.append((environ["PATH_INFO"], status, threading.get_native_id(), began, monotonic_ns()))
        return body


def burn_cpu(seconds: float) -> int:
    """The hot function that samples must name."""
    number, end = 0, monotonic_ns() + int(seconds * 1e9)
    while monotonic_ns() < end:
        for _ in range(200):
            number = (number * 31 + 7) & 0xFFFF
    return number


server = Flask(__name__)


@server.get("/items/<int:number>")
def item(number: int) -> str:
    if number % 7 == 0:
        abort(404)
    time.sleep(float(request.args.get("sleep", 0)))
    burn_cpu(float(request.args.get("burn", 0)))
    return f"item {number} of {os.getpid()}"


@server.get("/fail")
def fail() -> str:
    raise RuntimeError("as you wish")


@server.get("/stream")
def stream() -> Response:
    def parts() -> Iterable[str]:
        for number in range(3):
            time.sleep(0.01)
            yield f"{number}\n"

    return Response(stream_with_context(parts()))


@server.get("/notes")
def notes() -> Response:
    told = {"pid": os.getpid(), "now": monotonic_ns(), "requests": noted}
    return Response(json.dumps(told), mimetype="application/json")


server.wsgi_app = Noting(server.wsgi_app)  # type: ignore[method-assign]
server.wsgi_app = WSGIProfilingMiddleware(server.wsgi_app)  # type: ignore[method-assign]
