"""A server that answers puts as S3 does, or as S3 does when something is wrong; and two that do not answer at all."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

REGION = "us-east-1"
_LONGEST_HANG_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as S3 words it."""

    status: int
    code: str


ACCESS_DENIED = Fault(403, "AccessDenied")
NO_SUCH_BUCKET = Fault(404, "NoSuchBucket")
SLOW_DOWN = Fault(503, "SlowDown")
INTERNAL_ERROR = Fault(500, "InternalError")
CLOCK_SKEW = Fault(403, "RequestTimeTooSkewed")
EXPIRED = Fault(400, "ExpiredToken")
BAD_DIGEST = Fault(400, "BadDigest")
TAKEN = Fault(412, "PreconditionFailed")


@dataclass(frozen=True, slots=True)
class Put:
    """A request that came in."""

    at: float
    """Monotonic time."""
    method: str
    key: str
    headers: dict[str, str] = field(repr=False)


class FakeS3:
    """`with FakeS3() as store:` answers as S3 until `store.fault` is set."""

    def __init__(self, port: int = 0, fault: Fault | None = None) -> None:
        self.fault = fault
        self.lose_answers = 0
        """So many puts are stored and then cut off instead of answered."""
        self.loses_answers = False
        """All of them."""
        self.resets = False
        """Connections are reset in the middle of a body."""
        self.answers = threading.Event()
        """Cleared, nothing is answered and nothing stored until it is set."""
        self.answers.set()
        self.takes_seconds: Callable[[], float] = lambda: 0.0
        """How long a put takes."""
        self.requests: list[Put] = []
        self.objects: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self.is_away = False
        self._server, self.port = self._listening(port)

    def __enter__(self) -> Self:
        self.come_back()
        return self

    def __exit__(self, *exception: object) -> None:
        self.go_away()

    def go_away(self) -> None:
        """From now on connections are refused, and those that there are end."""
        if not self.is_away:
            self.is_away = True
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def come_back(self) -> None:
        """At the same port, with what there was."""
        if self.is_away:
            self._server, _ = self._listening(self.port)
            self.is_away = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fake-s3", daemon=True)
        self._thread.start()

    def _listening(self, port: int) -> tuple[ThreadingHTTPServer, int]:
        owner = self

        class Handler(_Handler):
            store = owner

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        return server, server.server_address[1]

    def settings(self) -> dict[str, str]:
        """The environment of a service that stores here."""
        return s3_settings(self.port)

    def take(self, put: Put, body: bytes) -> Fault | None:
        """Stores a body unless something is there; what went wrong."""
        with self._lock:
            self.requests.append(put)
            if self.fault is not None:
                return self.fault
            if put.key in self.objects and put.headers.get("if-none-match") == "*":
                return TAKEN
            self.objects[put.key] = body
            return None

    def answer_is_lost(self) -> bool:
        """Whether the answer to a put that was stored gets lost."""
        with self._lock:
            self.lose_answers -= 1
            return self.loses_answers or self.lose_answers >= 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: FakeS3

    def do_PUT(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        size = int(headers["content-length"])
        if self.store.is_away:
            self.close_connection = True
            return
        if self.store.resets:
            self.rfile.read(size // 2)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        body = self.rfile.read(size)
        self.store.answers.wait(_LONGEST_HANG_SECONDS)
        time.sleep(self.store.takes_seconds())
        if len(body) < size or not self.store.answers.is_set():
            self.close_connection = True  # as S3, which keeps nothing of it
            return
        bucket_and_key = self.path.partition("?")[0].lstrip("/")
        fault = self.store.take(Put(time.monotonic(), "PUT", bucket_and_key.partition("/")[2], headers), body)
        if fault is None and self.store.answer_is_lost():
            self.close_connection = True
            return
        answer = b"" if fault is None else _error_body(fault)
        self.send_response(200 if fault is None else fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the service may be killed in the middle of a put
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def s3_settings(port: int) -> dict[str, str]:
    """The environment of a service that stores at that port."""
    return {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "not-so-secret",
        "AWS_DEFAULT_REGION": REGION,
        "PROFILE_S3_BUCKET": "profiles-of-tests",
        "PROFILE_SERVICE_NAME": "shop",
    }


@contextmanager
def silent_port(*, listening: bool) -> Iterator[int]:
    """A port where connections are refused or, when `listening`, accepted and never answered."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        if listening:
            held.listen(64)
        yield held.getsockname()[1]


def _error_body(fault: Fault) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{fault.code}</Code>'
        f"<Message>as S3 would say it</Message><RequestId>1</RequestId></Error>"
    ).encode()
