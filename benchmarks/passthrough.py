"""What a request pays that passes through the middleware, beside a layer that does nothing.

`python -m benchmarks.passthrough`: over an application that does nothing and over one of a real framework, with
profiling off, and on between two windows.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from werkzeug.test import EnvironBuilder

from benchmarks.pairs import machine, ratios, verdict
from profiling_middleware import ProfilingMiddleware, Settings, WSGIProfilingMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PATH = "/api/v1/customers/18273645/orders"
_TURNS = 300
_TARGETS = {"off": 1.2, "on": 5.0}
_SCOPE = {
    "type": "http",
    "method": "GET",
    "path": _PATH,
    "root_path": "",
    "query_string": b"",
    "headers": [(b"host", b"service")],
    "http_version": "1.1",
    "scheme": "http",
    "client": ("192.0.2.1", 40000),
    "server": ("192.0.2.2", 80),
}


class EmptyLayer:
    """The least an ASGI middleware can do."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class EmptyWSGILayer:
    """The least a WSGI middleware can do."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.app(environ, start_response)


def main() -> None:
    print(f"ns a request, and the ratio to an empty layer: median [10 % 90 %] of {_TURNS} turns; {machine()}")
    asyncio.run(_measure_all())


async def _measure_all() -> None:
    # Off comes first: from the start of a profiler on, its thread is there.
    off = Settings()
    await _asgi("off", off)
    _wsgi("off", off)
    with tempfile.TemporaryDirectory(prefix="passthrough-") as directory:
        on = Settings(
            enabled=True,
            service_name="passthrough",
            store=Path(directory).as_uri(),
            interval=86_400,
            duration=1,
            types=("cpu",),
        )
        async with _lifespan(ProfilingMiddleware(_starlette(), settings=on)):
            await _first_window_ended(Path(directory))
            await _asgi("on", on)
            _wsgi("on", on)


async def _asgi(state: str, settings: Settings) -> None:
    for name, app, requests in (("nothing", _null, 2000), ("Starlette", _starlette(), 100)):
        layers: dict[str, ASGIApp] = {
            "no layer": app,
            "empty layer": EmptyLayer(app),
            "middleware": ProfilingMiddleware(app, settings=settings),
        }
        if settings.enabled:
            await _asgi_block(layers["middleware"], 1)
            _until_requests_are_labelled(layers["middleware"])
        times: dict[str, list[float]] = {layer: [] for layer in layers}
        for turn in range(_TURNS):
            for layer in _order(layers, turn):
                times[layer].append(await _asgi_block(layers[layer], requests))
        _print(f"ASGI {state}, over {name}", state, times)


def _wsgi(state: str, settings: Settings) -> None:
    for name, app, requests in (("nothing", _wsgi_null, 2000), ("Flask", _flask().wsgi_app, 40)):
        layers: dict[str, WSGIApplication] = {
            "no layer": app,
            "empty layer": EmptyWSGILayer(app),
            "middleware": WSGIProfilingMiddleware(app, settings=settings),
        }
        if settings.enabled:
            _wsgi_block(layers["middleware"], 1)
            _until_requests_are_labelled(layers["middleware"])
        times: dict[str, list[float]] = {layer: [] for layer in layers}
        for turn in range(_TURNS):
            for layer in _order(layers, turn):
                times[layer].append(_wsgi_block(layers[layer], requests))
        _print(f"WSGI {state}, over {name}", state, times)


def _until_requests_are_labelled(middleware: object) -> None:
    """Returns once the profiler behind it has been loaded, a second after its first request."""
    give_up = time.monotonic() + 20
    while middleware._service.label_maker is None:  # type: ignore[attr-defined]
        if time.monotonic() > give_up:
            raise RuntimeError("requests are not labelled: is the native engine missing?")
        time.sleep(0.05)


def _order(layers: Mapping[str, object], turn: int) -> list[str]:
    # Whoever comes first finds the caches as the turn before left them.
    names = list(layers)
    shift = turn % len(names)
    return names[shift:] + names[:shift]


async def _asgi_block(app: ASGIApp, requests: int) -> float:
    start = time.perf_counter_ns()
    for _ in itertools.repeat(None, requests):
        await app(dict(_SCOPE), _receive, _send)
    return (time.perf_counter_ns() - start) / requests


def _wsgi_block(app: WSGIApplication, requests: int) -> float:
    environ = EnvironBuilder(path=_PATH).get_environ()
    start = time.perf_counter_ns()
    for _ in itertools.repeat(None, requests):
        app(environ, _start_response)
    return (time.perf_counter_ns() - start) / requests


def _print(title: str, state: str, times: dict[str, list[float]]) -> None:
    empty = times["empty layer"]
    middleware = ratios(times["middleware"], empty)
    medians = ", ".join(f"{layer} {sorted(values)[len(values) // 2]:.0f}" for layer, values in times.items())
    print(f"{title:24} {medians}; ratio {middleware.text()}, {verdict(middleware.median, _TARGETS[state])}")


@asynccontextmanager
async def _lifespan(app: ASGIApp) -> AsyncIterator[None]:
    """What a server does: its start-up and shutdown messages, each answered before it goes on."""
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    serving = asyncio.create_task(_serve(app, to_app, from_app))
    await to_app.put({"type": "lifespan.startup"})
    await from_app.get()
    yield
    await to_app.put({"type": "lifespan.shutdown"})
    await from_app.get()
    await serving


async def _serve(app: ASGIApp, to_app: asyncio.Queue[Message], from_app: asyncio.Queue[Message]) -> None:
    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, to_app.get, from_app.put)


async def _first_window_ended(directory: Path) -> None:
    while not list(directory.rglob("*.pprof.gz")):
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)


async def _null(scope: Scope, receive: Receive, send: Send) -> None:
    pass


def _wsgi_null(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return ()


def _starlette() -> Starlette:
    async def orders(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    return Starlette(routes=[Route("/api/v1/customers/{customer}/orders", orders)])


def _flask() -> Flask:
    app = Flask("passthrough")

    @app.get("/api/v1/customers/<customer>/orders")
    def orders(customer: str) -> str:
        return "ok"

    return app


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    pass


def _start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
    pass


if __name__ == "__main__":
    main()
