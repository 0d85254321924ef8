"""A WSGI service, without a framework, in the profiler's middleware."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from profiling_middleware import WSGIProfilingMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
logging.getLogger("botocore").setLevel(logging.WARNING)


def hello_or_threads(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/threads":
        body = json.dumps({"threads": [thread.name for thread in threading.enumerate()], "pid": os.getpid()}).encode()
    else:
        body = b"hello"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


app = WSGIProfilingMiddleware(hello_or_threads)
