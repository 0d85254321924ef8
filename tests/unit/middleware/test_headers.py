"""How the token may be sent, and how it may not: one table, through both protocols; and where it is never seen."""

from __future__ import annotations

import asyncio
import base64
import logging
import traceback
from collections.abc import Callable
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from profiling_middleware.config import Settings, SettingsError
from profiling_middleware.middleware.access import refusal
from profiling_middleware.middleware.admin import Admin
from profiling_middleware.middleware.asgi import ProfilingMiddleware
from profiling_middleware.middleware.messages import AdminRequest, AdminResponse
from profiling_middleware.middleware.wsgi import WSGIProfilingMiddleware
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.profiler import Profiler

TOKEN = "tell-nobody"
SETTINGS = Settings(environment="dev", token=TOKEN)
BASIC = base64.b64encode(b"me:" + TOKEN.encode())
OPEN, CLOSED = 200, 401

HEADERS = [
    ([(b"authorization", b"Bearer tell-nobody")], OPEN),
    ([(b"AUTHORIZATION", b"bEARER tell-nobody")], OPEN),
    ([(b"Authorization", b"Basic " + BASIC)], OPEN),
    ([(b"authorization", b" Bearer  tell-nobody ")], OPEN),
    ([(b"authorization", b"\tBearer \ttell-nobody\t")], OPEN),
    ([], CLOSED),
    ([(b"authorization", b"")], CLOSED),
    ([(b"authorization", b"Bearer TELL-NOBODY")], CLOSED),
    # Two, as one server and the proxy before it may see different ones.
    ([(b"authorization", b"Bearer tell-nobody")] * 2, CLOSED),
    ([(b"authorization", b"Bearer x"), (b"Authorization", b"Bearer tell-nobody")], CLOSED),
    ([(b"authorization", b"Bearer tell-nobody"), (b"AUTHORIZATION", b"")], CLOSED),
    # Joined by a server or a proxy.
    ([(b"authorization", b"Bearer tell-nobody,Bearer tell-nobody")], CLOSED),
    ([(b"authorization", b"Bearer x, Bearer tell-nobody")], CLOSED),
    ([(b"authorization", b"Bearer tell-nobody, Bearer x")], CLOSED),
    ([(b"authorization", b"Basic " + BASIC + b", Basic " + BASIC)], CLOSED),
    # Folded over two lines.
    ([(b"authorization", b"Bearer\r\n tell-nobody")], CLOSED),
    ([(b"authorization", b"Bearer \r\n tell-nobody")], CLOSED),
    ([(b"authorization", b"Bearer tell-nobody\r\n x")], CLOSED),
    ([(b"authorization", b"Bearer tell-\r\n nobody")], CLOSED),
    # What Python calls white space and HTTP does not.
    ([(b"authorization", b"Bearer\xa0tell-nobody")], CLOSED),
    ([(b"authorization", b"Bearer tell-nobody\xa0")], CLOSED),
    ([(b"authorization", b"Bearer \x85tell-nobody")], CLOSED),
    ([(b"authorization", b"\x1cBearer tell-nobody")], CLOSED),
    ([(b"authorization", b"Bearer tell-nobody\x00")], CLOSED),
    ([(b"authorization", b"Bearer\ttell-nobody")], CLOSED),
    # Bytes that are no text.
    ([(b"authorization", b"Bearer \xff\xfe")], CLOSED),
    ([(b"authorization", b"\xff tell-nobody")], CLOSED),
    ([(b"authorization", b"Basic \xff")], CLOSED),
    ([(b"authorization", b"Basic " + base64.b64encode(b"\xff:\xff"))], CLOSED),
    # Other names.
    ([(b"authorization ", b"Bearer tell-nobody")], CLOSED),
    ([(b"authorization\x00", b"Bearer tell-nobody")], CLOSED),
    ([(b"x-authorization", b"Bearer tell-nobody")], CLOSED),
    ([(b"proxy-authorization", b"Bearer tell-nobody")], CLOSED),
    ([(b"x-forwarded-authorization", b"Bearer tell-nobody")], CLOSED),
    ([(b"cookie", b"authorization=Bearer tell-nobody")], CLOSED),
    ([(b"token", b"tell-nobody"), (b"x-profile-token", b"tell-nobody")], CLOSED),
    # Other schemes, and none.
    ([(b"authorization", b"tell-nobody")], CLOSED),
    ([(b"authorization", b"Bearer:tell-nobody")], CLOSED),
    ([(b"authorization", b"Token tell-nobody")], CLOSED),
    ([(b"authorization", b"Bearer Bearer tell-nobody")], CLOSED),
    ([(b"authorization", b"Basic tell-nobody")], CLOSED),
    ([(b"authorization", b"Bearer " + BASIC)], CLOSED),
    ([(b"authorization", b"Basic " + base64.b64encode(TOKEN.encode() + b":"))], CLOSED),
]


@pytest.mark.parametrize(("headers", "expected"), HEADERS)
def test_the_token_opens_in_one_header_alone_under_asgi(headers: list[tuple[bytes, bytes]], expected: int) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("not the application's")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/debug/pprof/cmdline",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *headers],
        "client": ("203.0.113.9", 1),
        "server": ("10.0.0.1", 2),
        "http_version": "1.1",
    }
    asyncio.run(ProfilingMiddleware(application, settings=SETTINGS)(scope, None, send))  # type: ignore[arg-type]

    assert sent[0]["status"] == expected
    assert TOKEN.encode() not in repr(sent).encode()


@pytest.mark.parametrize(("headers", "expected"), HEADERS)
def test_the_token_opens_in_one_header_alone_under_wsgi(headers: list[tuple[bytes, bytes]], expected: int) -> None:
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ |= {"PATH_INFO": "/debug/pprof/cmdline", "REMOTE_ADDR": "203.0.113.9"}
    for name, value in headers:
        # As PEP 3333's servers do it: decoded, equal ones joined.
        key = f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    statuses: list[str] = []
    app = WSGIProfilingMiddleware(lambda environ, start: [], settings=SETTINGS)

    body = b"".join(app(environ, lambda status, headers, error=None: statuses.append(status)))  # type: ignore[arg-type]

    assert statuses[0][:3] == str(expected)
    assert TOKEN.encode() not in body


# -- where the token is never seen ------------------------------------------------------------------------------------


def test_settings_and_requests_show_no_token(make_request: Callable[..., AdminRequest]) -> None:
    request = make_request(("authorization", f"Bearer {TOKEN}"), query=f"token={TOKEN}")

    for shown in (repr(SETTINGS), str(SETTINGS), f"{SETTINGS!r:>9}", repr(request), str(request)):
        assert TOKEN not in shown


@pytest.mark.parametrize("token", ["short", "with a space in it", "t\u00e9ll-nobody", "x" * 1025])
def test_a_token_that_is_refused_is_not_shown(token: str) -> None:
    for make in (lambda: Settings(token=token), lambda: Settings.from_env({"PROFILE_TOKEN": token})):
        with pytest.raises(SettingsError) as refused:
            make()
        assert token not in "".join(traceback.format_exception(refused.value))
        assert "PROFILE_TOKEN" in str(refused.value)


@pytest.mark.parametrize(
    ("path", "query", "method"),
    [
        ("", "", "GET"),
        ("/", "", "GET"),
        ("/cmdline", "", "GET"),
        (f"/{TOKEN}", "", "GET"),
        ("/cpu", f"seconds={TOKEN}", "GET"),
        ("/cpu", f"{TOKEN}=1", "GET"),
        ("/cpu", f"format={TOKEN}", "GET"),
        ("/cpu", f"upload={TOKEN}", "GET"),
        ("/cpu", f"seconds=1&seconds={TOKEN}", "GET"),
        ("/trace", f"format={TOKEN}", "GET"),
        ("/cpu", "", TOKEN),
    ],
)
@pytest.mark.parametrize("works", [True, False])
def test_no_answer_and_no_line_of_the_log_shows_the_token(
    path: str,
    query: str,
    method: str,
    works: bool,
    make_request: Callable[..., AdminRequest],
    logger: logging.Logger,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even to one who has sent it in the wrong place: answers are kept, and shown to others."""
    profiler = Profiler(SETTINGS)

    def make() -> Profiler:
        if not works:
            raise ZeroDivisionError
        return profiler

    request = make_request(
        ("authorization", f"Bearer {TOKEN}"), path=f"/debug/pprof{path}", query=query, method=method, peer="10.0.0.1"
    )
    assert refusal(request, SETTINGS) is None
    answer = Admin(SETTINGS, make).answer(request)

    assert isinstance(answer, AdminResponse)
    assert TOKEN not in repr(answer)
    assert TOKEN not in caplog.text
    assert THIS_PROCESS.resident is None
