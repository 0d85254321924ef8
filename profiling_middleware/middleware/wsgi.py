"""WSGI: `app.wsgi_app = WSGIProfilingMiddleware(app.wsgi_app)`. Translation of the protocol only."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import Token
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from profiling_middleware.config import Settings
from profiling_middleware.labels import CURRENT, LabelMaker, end_work
from profiling_middleware.middleware.messages import PREFIX, AdminRequest, AdminResponse, is_admin_path
from profiling_middleware.middleware.service import ProfilerService

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from profiling_middleware.middleware.admin import Pending

# How often a waiting request looks whether its client is still there.
_LOOK_SECONDS = 0.25
_SOCKET_KEYS = ("gunicorn.socket", "werkzeug.socket")


class WSGIProfilingMiddleware:
    """Starts the profiler at the first request and answers `/debug/pprof/`; all else passes untouched.

    An idle worker profiles too when gunicorn's configuration has the line
    `from profiling_middleware.middleware.gunicorn import post_worker_init`.
    """

    def __init__(self, app: WSGIApplication, *, settings: Settings | None = None) -> None:
        """Takes the settings of the environment when none are given.

        Raises SettingsError for what cannot be used, and RuntimeError when this process has a profiler with other
        settings.
        """
        self.app = app
        self._service = ProfilerService(Settings.from_env() if settings is None else settings)
        # With profiling off one comparison is all that a request pays; else it is for what every path contains.
        self._look_for = "" if self._service.settings.enabled else PREFIX
        self._started = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            passes = self._look_for not in environ["PATH_INFO"]
        except KeyError:  # an empty path may be left out
            passes = self._look_for == PREFIX
        if passes:
            return self.app(environ, start_response)
        if not self._started:
            self._started = True
            if self._service.settings.enabled:
                self._service.start()
        path = environ.get("PATH_INFO", "")
        if PREFIX in path and is_admin_path(path):
            return self._answer(environ, start_response)
        make = self._service.label_maker
        if make is None:
            return self.app(environ, start_response)
        return self._serve(make, environ, start_response)

    def _serve(self, make: LabelMaker, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serves a request whose samples are labelled, its body too where that is made bit by bit."""
        token = CURRENT.set(make(self._service.endpoints.of_wsgi, environ))
        try:
            body = self.app(environ, start_response)
        except BaseException:
            end_work(token)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            end_work(token)
            return body
        return _LabelledBody(body, token)

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = self._service.admin().answer(_request(environ))
        response = answer if isinstance(answer, AdminResponse) else _wait(answer, environ)
        if response is None:
            # The client has left; whatever is answered, nobody reads it.
            response = AdminResponse(499, b"")
        start_response(_status_line(response.status), response.all_headers())
        return [response.body]


class _LabelledBody:
    """A body that is still being made while the server sends it; closing it ends the request's work."""

    def __init__(self, body: Iterable[bytes], token: Token[object]) -> None:
        self._body, self._token = body, token

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            end_work(self._token)


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Client Closed Request"


def _request(environ: WSGIEnvironment) -> AdminRequest:
    headers = [
        (key[5:].replace("_", "-").lower(), str(value)) for key, value in environ.items() if key.startswith("HTTP_")
    ]
    return AdminRequest(
        method=environ["REQUEST_METHOD"],
        path=environ.get("PATH_INFO", ""),
        root=environ.get("SCRIPT_NAME", ""),
        query=environ.get("QUERY_STRING", ""),
        headers=headers,
        peer=environ.get("REMOTE_ADDR") or None,
        peer_port=_port(environ.get("REMOTE_PORT")),
        own_port=_port(environ.get("SERVER_PORT")),
        http_version=environ.get("SERVER_PROTOCOL", "").removeprefix("HTTP/"),
        can_wait=bool(environ.get("wsgi.multithread")),
    )


def _port(text: object) -> int | None:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else None


def _wait(pending: Pending, environ: WSGIEnvironment) -> AdminResponse | None:
    """Holds this worker's thread until the capture has ended; None when its client left before."""
    client = next((environ[key] for key in _SOCKET_KEYS if key in environ), None)
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


def _has_left(client: Any) -> bool:
    """Whether the client closed its end. Only servers that hand out their socket can tell."""
    if not isinstance(client, socket.socket) or client.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(client, select.POLLIN)
    try:
        return bool(poll.poll(0)) and client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except (OSError, ValueError):  # ValueError: a TLS socket takes no flags, so it cannot tell
        return False
