"""Which paths are the routes', and that every other one reaches the application as it came: one table for both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from profiling_middleware.config import Settings
from profiling_middleware.middleware.asgi import ProfilingMiddleware
from profiling_middleware.middleware.wsgi import WSGIProfilingMiddleware
from profiling_middleware.process import THIS_PROCESS

TOKEN = "tell-nobody"
SETTINGS = Settings(environment="dev", token=TOKEN)
OURS, APPLICATION = 401, 200
"""A path of the routes asks for the token; the application here answers everything."""

# What arrives after the server has decoded the target, so `%2F` and `%64` have become `/` and `d` by then.
PATHS = [
    ("/debug/pprof", OURS),
    ("/debug/pprof/", OURS),
    ("/debug/pprof/cpu", OURS),
    ("/debug/pprof/CPU", OURS),
    ("/debug/pprof//cpu", OURS),
    ("/debug/pprof/cpu/", OURS),
    ("/debug/pprof/../orders", OURS),  # nobody here resolves it: it is no profile, and 404 with the token
    ("/debug/pprof/;x", OURS),
    ("/debug/pprof/ ", OURS),
    ("/debug/pprof/\x00", OURS),
    ("/debug/pprof/\udcff", OURS),
    ("//debug/pprof/cpu", APPLICATION),
    ("/debug//pprof/cpu", APPLICATION),
    ("/debug/./pprof/cpu", APPLICATION),
    ("/x/../debug/pprof/cpu", APPLICATION),
    ("/./debug/pprof/cpu", APPLICATION),
    ("debug/pprof/cpu", APPLICATION),
    ("/Debug/pprof/cpu", APPLICATION),
    ("/DEBUG/PPROF/CPU", APPLICATION),
    ("/debug/pprof ", APPLICATION),
    (" /debug/pprof", APPLICATION),
    ("/debug/pprof\t", APPLICATION),
    ("/debug/pprof\n/cpu", APPLICATION),
    ("/debug/pprof\x00", APPLICATION),
    ("/debug/pprof;x", APPLICATION),
    ("/debug/pprof;/cpu", APPLICATION),
    ("/debug/pprof.html", APPLICATION),
    ("/debug/pprof2/cpu", APPLICATION),
    ("/debug/pprof?seconds=1", APPLICATION),
    ("/debug/pprof#x", APPLICATION),
    ("/debug\\pprof\\cpu", APPLICATION),
    ("/debug/pprof\\cpu", APPLICATION),
    ("/debug%2Fpprof/cpu", APPLICATION),  # a target that was encoded twice
    ("/%64ebug/pprof/cpu", APPLICATION),
    ("/debug/pprof%2Fcpu", APPLICATION),
    ("/debug\u2215pprof/cpu", APPLICATION),
    ("/\uff44ebug/pprof/cpu", APPLICATION),
    ("/debug/ppro\u017f", APPLICATION),
    ("/x/debug/pprof/cpu", APPLICATION),
    ("http://host/debug/pprof/cpu", APPLICATION),
    ("*", APPLICATION),
    ("/", APPLICATION),
    ("", APPLICATION),
]
# root_path and path, as servers (`uvicorn --root-path`), mounts and proxies that take a prefix away make them.
ROOTS = [
    ("/shop", "/shop/debug/pprof/cpu", OURS),
    ("/shop", "/debug/pprof/cpu", OURS),  # a proxy has taken the prefix away
    ("/shop/", "/shop//debug/pprof/cpu", OURS),  # as uvicorn puts them together
    ("/shop/", "/debug/pprof/cpu", OURS),
    ("/shop/", "/shop/debug/pprof/cpu", APPLICATION),  # Starlette would not route it either
    ("/shop", "/shop//debug/pprof/cpu", APPLICATION),
    ("/shop", "/shopdebug/pprof/cpu", APPLICATION),
    ("/shop", "/shop2/debug/pprof/cpu", APPLICATION),
    ("/shop", "/shop/shop/debug/pprof/cpu", APPLICATION),
    ("/shop", "/SHOP/debug/pprof/cpu", APPLICATION),
    ("/shop", "/x/shop/debug/pprof/cpu", APPLICATION),
    ("shop", "shop/debug/pprof/cpu", OURS),
    ("/", "//debug/pprof/cpu", OURS),
    ("/", "/debug/pprof/cpu", OURS),
    ("/debug", "/debug/pprof/cpu", APPLICATION),
    ("/debug/pprof", "/debug/pprof/cpu", APPLICATION),
    ("/debug", "/debug/debug/pprof/cpu", OURS),
    (None, "/debug/pprof/cpu", OURS),
    (b"/shop", "/shop/debug/pprof/cpu", APPLICATION),
]


class Application:
    """Notes what reaches it, and answers 200."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": APPLICATION, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.scopes.append(environ)
        start_response("200 OK", [])
        return []


def asgi_status(app: Any, scope: dict[str, Any]) -> int:
    statuses: list[int] = []

    async def receive() -> Any:
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    asyncio.run(app(scope, receive, send))
    (status,) = statuses
    return status


def http(path: str, **changes: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"seconds=0.01",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "http_version": "1.1",
        **changes,
    }


def wsgi_status(app: Any, path: str, **changes: Any) -> int:
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ |= {"PATH_INFO": path, "REMOTE_ADDR": "127.0.0.1", "SERVER_PROTOCOL": "HTTP/1.1", **changes}
    statuses: list[str] = []
    list(app(environ, lambda status, headers, error=None: statuses.append(status)))
    return int(statuses[0].split()[0])


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.mark.parametrize(("path", "expected"), PATHS)
def test_a_path_is_exactly_ours_or_untouched_under_asgi(path: str, expected: int, application: Application) -> None:
    scope = http(path)
    before = dict(scope)

    assert asgi_status(ProfilingMiddleware(application.asgi, settings=SETTINGS), scope) == expected
    assert application.scopes == ([before] if expected == APPLICATION else [])
    assert THIS_PROCESS.resident is None


@pytest.mark.parametrize(("path", "expected"), PATHS)
@pytest.mark.parametrize("script_name", ["", "/shop", "/debug/pprof", "//evil"])
def test_a_path_is_exactly_ours_or_untouched_under_wsgi(
    path: str, expected: int, script_name: str, application: Application
) -> None:
    """What stands before the path is not in it: PATH_INFO alone decides."""
    app = WSGIProfilingMiddleware(application.wsgi, settings=SETTINGS)

    assert wsgi_status(app, path, SCRIPT_NAME=script_name) == expected
    assert [environ["PATH_INFO"] for environ in application.scopes] == ([path] if expected == APPLICATION else [])


@pytest.mark.parametrize(("root", "path", "expected"), ROOTS)
def test_what_stands_before_the_path_is_taken_off_once_and_whole(
    root: object, path: str, expected: int, application: Application
) -> None:
    app = ProfilingMiddleware(application.asgi, settings=SETTINGS)

    assert asgi_status(app, http(path, root_path=root)) == expected
    assert len(application.scopes) == (expected == APPLICATION)


@pytest.mark.parametrize(
    "name", ["CPU", "/cpu", "cpu/", "../cpu", "%63pu", ";x", "cpu;x", " ", "cpu ", "\x00", "\udcff"]
)
def test_what_is_below_ours_and_no_profile_is_404_for_those_who_may(name: str, application: Application) -> None:
    token = f"Bearer {TOKEN}"
    asgi = ProfilingMiddleware(application.asgi, settings=SETTINGS)
    wsgi = WSGIProfilingMiddleware(application.wsgi, settings=SETTINGS)

    assert asgi_status(asgi, http(f"/debug/pprof/{name}", headers=[(b"authorization", token.encode())])) == 404
    assert wsgi_status(wsgi, f"/debug/pprof/{name}", HTTP_AUTHORIZATION=token) == 404
    assert THIS_PROCESS.resident is None


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/debug/pprof/cpu", 401, "profiling"),  # the outer application's routes
        ("/sub/debug/pprof/cpu", 401, "profiling"),  # the inner one's
        ("/sub//debug/pprof/cpu", 404, "Not Found"),
        ("/bare/debug/pprof/cpu", 404, "Not Found"),  # no middleware is mounted there
        ("/sub/sub/debug/pprof/cpu", 404, "Not Found"),
        ("/sub/debug/pprof/../orders", 401, "profiling"),
        ("/sub/orders", 200, "/sub/orders"),
        ("/bare/orders", 200, "/bare/orders"),
    ],
)
def test_each_mounted_application_has_the_routes_below_its_own_path(path: str, status: int, body: str) -> None:
    async def orders(request: Request) -> Response:
        return PlainTextResponse(request.url.path)

    inner, bare = Starlette(routes=[Route("/orders", orders)]), Starlette(routes=[Route("/orders", orders)])
    inner.add_middleware(ProfilingMiddleware, settings=SETTINGS)
    outer = Starlette(routes=[Mount("/sub", app=inner), Mount("/bare", app=bare)])
    outer.add_middleware(ProfilingMiddleware, settings=SETTINGS)
    said: list[bytes] = []

    async def receive() -> Any:
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        said.append(message.get("body") or str(message.get("status")).encode())

    asyncio.run(outer(http(path), receive, send))

    assert said[0] == str(status).encode()
    assert said[1].decode().startswith(body)


@pytest.mark.parametrize("changes", [{"path": None}, {"path": b"/debug/pprof/cpu"}, {"path": 7}, {"path": ...}])
@pytest.mark.parametrize("kind", ["http", "websocket", "something else"])
def test_a_scope_without_a_path_is_the_applications_to_answer(
    changes: dict[str, Any], kind: str, application: Application
) -> None:
    scope = http("", type=kind) | changes
    if scope["path"] is ...:
        del scope["path"]

    assert asgi_status(ProfilingMiddleware(application.asgi, settings=SETTINGS), scope) == APPLICATION
    assert application.scopes == [scope]


KEYS = ["method", "query_string", "headers", "client", "server", "http_version", "root_path", "raw_path", "scheme"]
ODD = [
    None,
    "",
    "x",
    b"x",
    7,
    [],
    {},
    (),
    ("127.0.0.1",),
    ("127.0.0.1", "x"),
    [("host", "localhost")],
    [(b"a",)],
    "\ud800",
]


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("key", KEYS)
def test_an_odd_scope_is_refused_and_never_an_error(key: str, token: str | None, application: Application) -> None:
    app = ProfilingMiddleware(application.asgi, settings=Settings(environment="dev", token=token))
    without = http("/debug/pprof/cmdline", root_path="")
    without.pop(key, None)
    odd = [http("/debug/pprof/cmdline", **{key: value}) for value in ODD]

    statuses = {asgi_status(app, scope) for scope in (without, *odd)}

    assert statuses <= ({401, 400} if token else {200, 400, 403, 405})
    assert application.scopes == []


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize(
    "name",
    ["REQUEST_METHOD", "SCRIPT_NAME", "QUERY_STRING", "HTTP_HOST", "REMOTE_ADDR", "SERVER_PORT", "SERVER_PROTOCOL"],
)
def test_an_odd_environ_is_refused_and_never_an_error(name: str, token: str | None, application: Application) -> None:
    app = WSGIProfilingMiddleware(application.wsgi, settings=Settings(environment="dev", token=token))

    statuses = {wsgi_status(app, "/debug/pprof/cmdline", **{name: value}) for value in ODD}

    assert statuses <= ({401, 400} if token else {200, 400, 403, 405})
    assert application.scopes == []


@pytest.mark.parametrize(
    ("root", "location"),
    [
        ("", "/debug/pprof/"),
        ("/", "/debug/pprof/"),
        ("/shop", "/shop/debug/pprof/"),
        ("//evil.example", "/evil.example/debug/pprof/"),
        ("/\\evil.example", "/%5Cevil.example/debug/pprof/"),
        ("https://evil.example", "/https%3A//evil.example/debug/pprof/"),
        ("/a\r\nSet-Cookie: x", "/a%0D%0ASet-Cookie%3A%20x/debug/pprof/"),
        ("/\ud800", "/%3F/debug/pprof/"),
    ],
)
def test_the_redirect_leads_to_this_server_whatever_stands_before_the_path(
    root: str, location: str, application: Application
) -> None:
    app = WSGIProfilingMiddleware(application.wsgi, settings=SETTINGS)
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ |= {"PATH_INFO": "/debug/pprof", "SCRIPT_NAME": root, "HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}
    headers: dict[str, str] = {}
    list(app(environ, lambda status, given, error=None: headers.update(given)))

    assert headers["Location"] == location
