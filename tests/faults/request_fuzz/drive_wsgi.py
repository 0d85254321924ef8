"""Sends requests through WSGI, once with the middleware and, where they are the application's, once without."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
from collections import Counter
from typing import Any

from profiling_middleware.config import Settings
from profiling_middleware.middleware.wsgi import WSGIProfilingMiddleware
from request_fuzz import application, oracle
from request_fuzz.cases import Case
from request_fuzz.watch import FuzzFailure, Watch, must_not_show

_NAMES = {
    "method": "REQUEST_METHOD", "path": "PATH_INFO", "root_path": "SCRIPT_NAME", "query_string": "QUERY_STRING",
    "client": "REMOTE_ADDR", "server": "SERVER_PORT", "http_version": "SERVER_PROTOCOL", "headers": "HTTP_HOST",
    "raw_path": "REMOTE_PORT",
}  # fmt: skip


def environ_of(case: Case, client: socket.socket | None) -> dict[str, Any]:
    """As PEP 3333 has it, but for what is odd: text of bytes, equal headers joined."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": case.method,
        "SCRIPT_NAME": _text(case.root),
        "PATH_INFO": _text(case.path.removeprefix(case.root)),
        "QUERY_STRING": _text(case.query),
        "REMOTE_ADDR": case.peer,
        "REMOTE_PORT": "50000",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": f"HTTP/{case.version}",
    }
    for name, value in case.headers:
        key = f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    for key, value in case.odd.items():
        if key not in _NAMES:
            continue
        if value is ...:
            environ.pop(_NAMES[key], None)
        elif key != "path" or isinstance(value, str):
            environ[_NAMES[key]] = value
    environ |= {"wsgi.input": io.BytesIO(b"".join(case.body)), "wsgi.errors": sys.stderr, "wsgi.url_scheme": "http"}
    environ |= {"wsgi.multithread": len(case.path) % 2 == 0, "werkzeug.socket": client}
    return environ


def _text(given: str) -> str:
    return given.encode("utf-8", "surrogatepass").decode("latin-1")


def _transcript(app: Any, environ: dict[str, Any]) -> list[Any]:
    seen: list[Any] = []

    def start_response(status: str, headers: Any, error: Any = None) -> Any:
        seen.append((status, headers))
        return seen.append

    try:
        body = app(environ, start_response)
        try:
            seen.extend(body)
        finally:
            getattr(body, "close", lambda: None)()
    except Exception as error:
        seen.append((type(error), error.args))
    return seen


def drive(settings: Settings, cases: list[Case], watch: Watch, counts: Counter[str]) -> None:
    """Sends all of them to a service with these settings. Raises FuzzFailure, which names the request."""
    middleware = WSGIProfilingMiddleware(application.wsgi, settings=settings)
    server, client = socket.socketpair()
    with server, contextlib.ExitStack() as end:
        end.callback(middleware._service.stop)
        client.close()  # it has left: nobody waits for a capture here
        for case in cases:
            environ = environ_of(case, None if case.patient else server)
            try:
                _drive_one(middleware, settings, environ, watch, counts)
            except FuzzFailure as failure:
                raise FuzzFailure(f"{failure}\nenviron: {environ!r}\n{settings!r}") from None


def _drive_one(
    middleware: Any, settings: Settings, environ: dict[str, Any], watch: Watch, counts: Counter[str]
) -> None:
    work, before = watch.work, dict(environ)
    seen = _transcript(middleware, environ)
    must_not_show(settings.token, watch.take_lines())
    counts["wsgi"] += 1
    if not oracle.is_ours("http", before.get("PATH_INFO", ""), None):
        counts["the application's"] += 1
        before["wsgi.input"].seek(0)
        if environ != before or seen != _transcript(application.wsgi, before) or watch.work != work:
            raise FuzzFailure(f"not as without the middleware: {seen}")
        return
    counts["the routes'"] += 1
    headers = [
        (key[5:].replace("_", "-").encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for key, value in before.items()
        if key.startswith("HTTP_") and isinstance(value, str)
    ]
    version = before.get("SERVER_PROTOCOL")
    refused = oracle.must_be_refused(
        settings,
        headers,
        before.get("REMOTE_ADDR"),
        version.removeprefix("HTTP/") if isinstance(version, str) else version,
        joined=True,
    )
    _check(seen, refused, watch.work != work, settings.token, counts)


def _check(seen: list[Any], refused: bool, worked: bool, token: str | None, counts: Counter[str]) -> None:
    status = seen[0][0]
    if not isinstance(status, str):
        raise FuzzFailure(f"raised {seen[0]}")
    for one in seen:
        must_not_show(token, *(one if isinstance(one, tuple) else (one,)))
    counts[f"status {status[:3]}"] += 1
    if int(status[:3]) not in oracle.STATUSES:
        raise FuzzFailure(f"answered {status}: {seen}")
    if refused and (worked or int(status[:3]) not in oracle.REFUSALS):
        raise FuzzFailure(f"not refused, but answered {status}")
    counts["refused"] += refused
