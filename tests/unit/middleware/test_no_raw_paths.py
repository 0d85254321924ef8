"""No framework's request is labelled with what stands in its URL, be there a route for it or not."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.util import setup_testing_defaults

import flask
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from profiling_middleware.middleware.work import Endpoints
from profiling_middleware.tracing.requests import RequestSpan

SECRET = "s3cr3t-4711"


async def here(request: Request) -> Response:
    return PlainTextResponse("here")


def asgi_name(app: Any, path: str, **changes: Any) -> str | None:
    """What the request is called once it has been served; what a trace calls it is checked by the way."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": f"q={SECRET}".encode(),
        "headers": [(b"host", f"{SECRET}.example".encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
        **changes,
    }
    kind = "websocket.connect" if scope["type"] == "websocket" else "http.request"
    incoming = [{"type": kind, "body": b""}]
    endpoints = Endpoints()

    async def receive() -> Any:
        return incoming.pop(0) if incoming else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        seen.append(repr(endpoints.of_asgi(scope)))

    seen: list[str] = []
    span = RequestSpan(0, 1, endpoints.of_asgi, scope, None)
    asyncio.run(app(scope, receive, send))
    seen.append(repr(span.event(0)))
    assert not any(SECRET in one for one in seen), seen
    labels = endpoints.of_asgi(scope)
    return None if labels is None else str(labels[0].value)


def wsgi_name(app: Any, path: str, **changes: Any) -> str | None:
    """Likewise."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ |= {"PATH_INFO": path, "QUERY_STRING": f"q={SECRET}", "HTTP_HOST": f"{SECRET}.example", **changes}
    endpoints = Endpoints()
    span = RequestSpan(0, 1, endpoints.of_wsgi, environ, None)
    found: list[str | None] = []

    def start_response(status: str, headers: Any, error: Any = None) -> Callable[[bytes], object]:
        span.note_status(status)
        labels = endpoints.of_wsgi(environ)
        found.append(None if labels is None else str(labels[0].value))
        return lambda data: None

    body = app(environ, start_response)
    list(body)
    getattr(body, "close", lambda: None)()
    assert SECRET not in repr((found, span.event(0), endpoints.of_wsgi(environ)))
    return found[0]


# -- Starlette --------------------------------------------------------------------------------------------------------


@pytest.fixture
def starlette(tmp_path: Path) -> Starlette:
    (tmp_path / f"{SECRET}.txt").write_text("a file")
    inner = Starlette(routes=[Route("/in/{id}", here)])
    return Starlette(
        routes=[
            Route("/items/{id}", here),
            Route("/slash/", here),
            Route("/{id}/post", here, methods=["POST"]),
            Mount("/{tenant}/app", app=inner),
            Mount("/router", app=Router([Route("/r/{id}", here)])),
            Mount("/static", app=StaticFiles(directory=tmp_path)),
            Host("{sub}.example.org", app=Router([Route("/h/{id}", here)])),
        ]
    )


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (f"/items/{SECRET}", ["/items/{id}"]),
        (f"/{SECRET}", [None]),
        (f"/items/{SECRET}/more", [None]),
        (f"//{SECRET}", [None]),
        (f"/{SECRET}/post", ["/{id}/post"]),  # 405
        (f"/{SECRET}/app/in/{SECRET}", ["/{tenant}/app/in/{id}"]),
        (f"/router/r/{SECRET}", ["/router/r/{id}"]),
        # No route in there: the mount, or what is mounted, is all that Starlette says, by its version.
        (f"/{SECRET}/app/{SECRET}", ["/{tenant}/app", "starlette.applications.Starlette"]),
        (f"/router/{SECRET}", ["/router", "starlette.routing.Router"]),
        (f"/static/{SECRET}.txt", ["/static", "starlette.staticfiles.StaticFiles"]),
    ],
)
def test_starlette(starlette: Starlette, path: str, names: list[str | None]) -> None:
    async def quiet(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(HTTPException):  # which a router without an application raises
            await starlette(scope, receive, send)

    assert asgi_name(quiet, path) in names


@pytest.mark.parametrize("path", [f"/slash?{SECRET}", "/slash", f"/{SECRET}/", ""])
def test_starlette_redirects(starlette: Starlette, path: str) -> None:
    asgi_name(starlette, path)


def test_starlette_hosts(starlette: Starlette) -> None:
    headers = [(b"host", f"{SECRET}.example.org".encode())]
    asgi_name(starlette, f"/h/{SECRET}", headers=headers)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_an_application_without_routes(kind: str) -> None:
    assert asgi_name(Starlette(), f"/{SECRET}", type=kind) is None


def test_what_an_error_handler_answers() -> None:
    async def failing(request: Request) -> Response:
        raise LookupError(SECRET)

    async def handler(request: Request, error: Exception) -> Response:
        return PlainTextResponse("sorry", 404)

    app = Starlette(routes=[Route("/fails/{id}", failing)], exception_handlers={LookupError: handler, 404: handler})

    assert asgi_name(app, f"/fails/{SECRET}") == "/fails/{id}"
    assert asgi_name(app, f"/{SECRET}") is None


# -- FastAPI ----------------------------------------------------------------------------------------------------------


def optional(name: str) -> ModuleType:
    """A framework that is no dependency."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install {name}")
    return importlib.import_module(name)


@pytest.mark.parametrize(
    ("path", "endings"),
    [
        (f"/items/{SECRET}", ("/items/{item_id}",)),
        (f"/api/users/{SECRET}", ("/users/{user_id}",)),
        (f"/files/{SECRET}/x", ("/files/{rest:path}",)),
        (f"/sub/in/{SECRET}", ("/sub/in/{number}",)),
        (f"/sub/{SECRET}", ("/sub", "fastapi.applications.FastAPI")),
        (f"/int/{SECRET}", ("/int/{number}",)),  # 422
        (f"/{SECRET}", ("None",)),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fastapi(path: str, endings: tuple[str, ...]) -> None:
    fastapi = optional("fastapi")
    app, sub, router = fastapi.FastAPI(), fastapi.FastAPI(), fastapi.APIRouter()
    app.get("/items/{item_id}")(lambda item_id: item_id)
    app.get("/files/{rest:path}")(lambda rest: rest)

    async def integer(number: int) -> int:
        return number

    app.get("/int/{number}")(integer)
    sub.get("/in/{number}")(lambda number: number)
    router.get("/users/{user_id}")(lambda user_id: user_id)
    app.include_router(router, prefix="/api")
    app.mount("/sub", sub)

    assert str(asgi_name(app, path)).endswith(endings)


# -- Flask ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/items/{SECRET}", "/items/<name>"),
        (f"/{SECRET}", None),
        (f"/int/{SECRET}", None),
        ("/slash", None),  # redirected
        (f"/static/{SECRET}", "/static/<path:filename>"),
        (f"/api/items/{SECRET}", "/items/<name>"),  # mounted: what stands before it is nobody's rule
        (f"/api/{SECRET}", None),
        (f"/fails/{SECRET}", "/fails/<name>"),
    ],
)
def test_flask(path: str, name: str | None) -> None:
    app = flask.Flask("shop")
    app.add_url_rule("/items/<name>", "item", lambda name: name)
    app.add_url_rule("/int/<int:number>", "number", lambda number: "")
    app.add_url_rule("/slash/", "slash", lambda: "")
    app.add_url_rule("/fails/<name>", "fails", lambda name: flask.abort(404))

    assert wsgi_name(DispatcherMiddleware(app, {"/api": app}), path) == name


# -- Django -----------------------------------------------------------------------------------------------------------

DJANGO_PATHS = [f"/items/{SECRET}/", f"/{SECRET}", f"/items/{SECRET}", f"/sub/{SECRET}/", "/"]


@pytest.fixture(scope="module")
def django_urls() -> ModuleType:
    django, conf = optional("django"), importlib.import_module("django.conf")
    urls = ModuleType("urls_of_a_test")
    if not conf.settings.configured:
        conf.settings.configure(
            SECRET_KEY="x", ALLOWED_HOSTS=["*"], DEBUG=False, USE_TZ=True, LOGGING_CONFIG=None, ROOT_URLCONF=urls
        )
        django.setup()
    http, path = importlib.import_module("django.http"), importlib.import_module("django.urls").path

    def item(request: Any, name: str) -> Any:
        return http.HttpResponse(name)

    urls.urlpatterns = [path("items/<name>/", item)]  # type: ignore[attr-defined]
    return urls


@pytest.mark.parametrize("path", DJANGO_PATHS)
@pytest.mark.usefixtures("django_urls")
def test_django_wsgi(path: str) -> None:
    application = importlib.import_module("django.core.handlers.wsgi").WSGIHandler()

    assert wsgi_name(application, path) is None


@pytest.mark.parametrize("path", DJANGO_PATHS)
@pytest.mark.usefixtures("django_urls")
def test_django_asgi(path: str) -> None:
    application = importlib.import_module("django.core.handlers.asgi").ASGIHandler()

    assert asgi_name(application, path) is None
