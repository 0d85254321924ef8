"""A client that sends exactly what a test says, over TCP or a unix socket."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from integration_kit.waiting import eventually


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and how long it took."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes = field(repr=False)
    seconds: float

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def unzipped(self) -> bytes:
        return gzip.decompress(self.body)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    socket_path: Path | None = None,
) -> Answer:
    """One request on a connection of its own; as curl, it says nothing of itself unless told to."""
    parts = urlsplit(url)
    if socket_path is not None:
        connection: http.client.HTTPConnection = _UnixConnection(socket_path, timeout)
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    started = time.monotonic()
    try:
        connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read(), time.monotonic() - started)
    finally:
        connection.close()


def bearer(token: str) -> dict[str, str]:
    """The header of one who knows the token."""
    return {"Authorization": f"Bearer {token}"}


def basic(user: str, password: str) -> dict[str, str]:
    """The header that a URL with user and password becomes."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def open_request(url: str, headers: Mapping[str, str] | None = None) -> socket.socket:
    """A GET that has been sent, for one who may leave before the answer comes."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=60)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {parts.netloc}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    connection.sendall("\r\n".join((*lines, "", "")).encode())
    return connection


@contextmanager
def waiting_clients(url: str, count: int) -> Iterator[None]:
    """So many clients have asked for a capture of a service of one process and wait; at the end they all leave."""
    with ExitStack() as leaving:
        for _ in range(count):
            leaving.enter_context(open_request(url))
        state = urljoin(url, "/debug/pprof/?format=json")
        eventually(lambda: fetch(state).json()["running_captures"] == count, "every capture has begun")
        yield


def receive_all(connection: socket.socket, end: bytes = b"") -> bytes:
    """What comes until `end` has come, or until the server hangs up."""
    received = b""
    while not (end and received.endswith(end)) and (block := connection.recv(65536)):
        received += block
    return received
