"""How a WSGI client waits for a capture and gets it: it may leave, read slowly, or not at all."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from http import HTTPStatus
from typing import TYPE_CHECKING

from profiling_middleware import limits
from profiling_middleware.middleware.messages import AdminRequest, AdminResponse, Awaited, not_readable, pieces
from profiling_middleware.model import Body
from profiling_middleware.threads import OwnThread

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from profiling_middleware.middleware.admin import Admin

# How often a waiting request looks whether its client is still there.
_LOOK_SECONDS = 0.25
_SOCKET_KEYS = ("gunicorn.socket", "werkzeug.socket")


def answer(admin: Admin, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers a request to the routes."""
    response = _asked(admin, environ)
    if not isinstance(response, AdminResponse):
        return _answer_capture(response, environ, start_response)
    start_response(_status_line(response.status), response.all_headers())
    if environ.get("REQUEST_METHOD") == "HEAD":
        return []  # not every server leaves it out
    return pieces(response.body)


def _asked(admin: Admin, environ: WSGIEnvironment) -> AdminResponse | Awaited:
    try:
        request = _request(environ)
    except Exception as unreadable:
        return not_readable(unreadable)
    return admin.answer(request)


def _answer_capture(pending: Awaited, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    try:
        # When the client has left, nobody reads what is answered.
        response = _wait(pending, environ) or AdminResponse(499, b"")
        start_response(_status_line(response.status), response.all_headers())
        return CaptureBody(response.body, pending, _client(environ))
    except BaseException:
        pending.close()
        raise


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Client Closed Request"


class CaptureBody:
    """A capture as a WSGI body. A client that has not read it after `READ_SECONDS` loses its connection."""

    def __init__(self, body: Body, pending: Awaited, client: socket.socket | None) -> None:
        """`client` is its socket, where the server hands it out; elsewhere the time is looked at between two pieces."""
        self._body, self._pending, self._client = body, pending, client
        self._until = time.monotonic() + limits.READ_SECONDS
        self._closed = threading.Event()
        self._lock = threading.Lock()
        if client is not None:
            with contextlib.suppress(RuntimeError):  # no thread to be had
                OwnThread(self._watch, "profiling-answer").start()

    def __iter__(self) -> Iterator[bytes]:
        for piece in pieces(self._body):
            if time.monotonic() >= self._until:
                self._break_off()
                raise ConnectionResetError(errno.ECONNRESET, "profiling: the client does not read what it asked for")
            yield piece
        self.close()

    def close(self) -> None:
        """The server calls it however it ends, and before it closes the socket."""
        with self._lock:
            self._closed.set()
        self._pending.close()

    def __del__(self) -> None:
        if not self._closed.is_set():  # a server that forgets
            self.close()

    def _watch(self) -> None:
        # A server that sends to a client that does not read waits in a system call, until there is no connection.
        if not self._closed.wait(max(0.0, self._until - time.monotonic())):
            self._break_off()

    def _break_off(self) -> None:
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            self._pending.break_off()
            if self._client is not None:
                with contextlib.suppress(OSError):
                    self._client.shutdown(socket.SHUT_RDWR)


def _wait(pending: Awaited, environ: WSGIEnvironment) -> AdminResponse | None:
    """Holds this worker's thread until the capture has ended; None when its client left before."""
    client = _client(environ)
    try:
        while True:
            try:
                pending.result.exception(_LOOK_SECONDS)
            except FutureTimeoutError:
                if _has_left(client):
                    return None
            else:
                return pending.response()
    finally:
        if not pending.result.done():
            pending.cancel()


def _client(environ: WSGIEnvironment) -> socket.socket | None:
    """The connection, from servers that hand it out."""
    client = next((environ[key] for key in _SOCKET_KEYS if key in environ), None)
    return client if isinstance(client, socket.socket) else None


def _has_left(client: socket.socket | None) -> bool:
    """Whether the client closed its end. Only servers that hand out their socket can tell."""
    if client is None or client.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(client, select.POLLIN)
    try:
        return bool(poll.poll(0)) and client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except (OSError, ValueError):  # ValueError: a TLS socket takes no flags, so it cannot tell
        return False


def _request(environ: WSGIEnvironment) -> AdminRequest:
    headers = [
        (key[5:].replace("_", "-").lower(), str(value)) for key, value in environ.items() if key.startswith("HTTP_")
    ]
    return AdminRequest(
        method=_text(environ, "REQUEST_METHOD"),
        path=_text(environ, "PATH_INFO"),
        root=_text(environ, "SCRIPT_NAME"),
        query=_text(environ, "QUERY_STRING"),
        headers=headers,
        peer=_text(environ, "REMOTE_ADDR") or None,
        peer_port=_port(environ.get("REMOTE_PORT")),
        own_port=_port(environ.get("SERVER_PORT")),
        http_version=_text(environ, "SERVER_PROTOCOL").removeprefix("HTTP/"),
        can_wait=bool(environ.get("wsgi.multithread")),
    )


def _text(environ: WSGIEnvironment, name: str) -> str:
    value = environ.get(name)
    return value if isinstance(value, str) else ""


def _port(text: object) -> int | None:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else None
