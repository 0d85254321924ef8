"""A Starlette service worth profiling: every endpoint spends its time in another way.

`app.add_middleware(ProfilingMiddleware)` is all that profiling asks of it.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypedDict

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from profiling_middleware import ProfilingMiddleware, Settings
from sample_app import work
from sample_app.orders import OrderBook
from sample_app.upstream import ask_upstream, slow_upstream


class State(TypedDict):
    """What the endpoints share while the service runs."""

    orders: OrderBook
    terminal: work.CardTerminal
    upstream_port: int


def create_app(settings: Settings | None = None) -> Starlette:
    """The service. Without settings the profiler takes its own from the environment."""
    app = Starlette(routes=ROUTES, lifespan=_lifespan)
    app.add_middleware(ProfilingMiddleware, settings=settings)
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[State]:
    with tempfile.TemporaryDirectory(prefix="sample-app-") as directory:
        orders = OrderBook(Path(directory, "orders.sqlite"))
        await run_in_threadpool(orders.fill)
        async with slow_upstream() as port:
            yield State(orders=orders, terminal=work.CardTerminal(), upstream_port=port)


async def index(request: Request) -> HTMLResponse:
    """This page."""
    rows = [f'<li><a href="{route.path}">{route.path}</a> {inspect.getdoc(route.endpoint)}' for route in ROUTES]
    rows.append('<li><a href="/debug/pprof/">/debug/pprof/</a> Profiles on demand.')
    return HTMLResponse(f"<!doctype html><title>Sample service</title><ul>{''.join(rows)}</ul>")


def hot(request: Request) -> JSONResponse:
    """A hot loop, a few calls deep, in the thread pool."""
    return JSONResponse({"total": work.quote_basket()})


def report(request: Request) -> JSONResponse:
    """A big JSON document, written and read back, in the thread pool."""
    return JSONResponse({"rows": work.monthly_report()})


async def orders(request: Request) -> JSONResponse:
    """A question to SQLite through the thread pool."""
    book: OrderBook = request.state.orders
    return JSONResponse({"cents": await run_in_threadpool(book.totals)})


async def checkout(request: Request) -> JSONResponse:
    """A lock that every request holds for 10 ms: with several at once they queue."""
    terminal: work.CardTerminal = request.state.terminal
    return JSONResponse({"payment": await run_in_threadpool(terminal.pay)})


async def fanout(request: Request) -> JSONResponse:
    """Five awaits at once in a task group."""
    return JSONResponse({"offers": await work.collect_offers()})


async def upstream(request: Request) -> JSONResponse:
    """An await on a slow service."""
    return JSONResponse({"stock": await ask_upstream(request.state.upstream_port)})


async def mistake(request: Request) -> JSONResponse:
    """A sleep and a loop that block the event loop, as they should not."""
    return JSONResponse({"checksum": work.write_audit_log()})


async def stream(request: Request) -> StreamingResponse:
    """A streamed CSV export."""
    return StreamingResponse(work.export_lines(), media_type="text/csv")


async def health(request: Request) -> PlainTextResponse:
    """Next to no work."""
    return PlainTextResponse("ok")


ROUTES = (
    Route("/", index),
    Route("/hot", hot),
    Route("/report", report),
    Route("/orders", orders),
    Route("/checkout", checkout),
    Route("/fanout", fanout),
    Route("/upstream", upstream),
    Route("/mistake", mistake),
    Route("/stream", stream),
    Route("/health", health),
)
