"""Sends requests through ASGI, once with the middleware and, where they are the application's, once without."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from profiling_middleware.config import Settings
from profiling_middleware.middleware.asgi import ProfilingMiddleware
from request_fuzz import application, oracle
from request_fuzz.cases import Case
from request_fuzz.watch import FuzzFailure, Watch, must_not_show

_SECONDS = 20.0


def scope_of(case: Case) -> dict[str, Any]:
    """As uvicorn makes it, but for what is odd."""
    scope: dict[str, Any] = {
        "type": case.kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": case.version,
        "method": case.method,
        "scheme": "http",
        "path": case.path,
        "raw_path": case.path.encode("utf-8", "surrogatepass"),
        "root_path": case.root,
        "query_string": case.query.encode("utf-8"),
        "headers": list(case.headers),
        "client": (case.peer, 50_000),
        "server": ("127.0.0.1", 8000),
    }
    for key, value in case.odd.items():
        if value is ...:
            scope.pop(key, None)
        else:
            scope[key] = value
    return scope


async def _transcript(app: Any, scope: dict[str, Any], case: Case) -> list[Any]:
    incoming: list[Any] = [{"type": "http.request", "body": body, "more_body": True} for body in case.body]
    incoming.append({"type": "http.request", "body": b"", "more_body": False})
    seen: list[Any] = []

    async def receive() -> Any:
        if incoming:
            return incoming.pop(0)
        if case.patient:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        seen.append(dict(message))

    try:
        async with asyncio.timeout(_SECONDS):
            await app(scope, receive, send)
    except TimeoutError:
        raise FuzzFailure("hangs") from None
    except Exception as error:
        seen.append((type(error), error.args))
    return seen


async def drive(settings: Settings, cases: list[Case], watch: Watch, counts: Counter[str]) -> None:
    """Sends all of them to a service with these settings. Raises FuzzFailure, which names the request."""
    middleware = ProfilingMiddleware(application.asgi, settings=settings)
    try:
        for case in cases:
            scope = scope_of(case)
            try:
                await _drive_one(middleware, settings, case, scope, watch, counts)
            except FuzzFailure as failure:
                raise FuzzFailure(f"{failure}\nscope: {scope!r}\n{settings!r}") from None
    finally:
        middleware._service.stop()


async def _drive_one(
    middleware: Any, settings: Settings, case: Case, scope: dict[str, Any], watch: Watch, counts: Counter[str]
) -> None:
    work, before = watch.work, dict(scope)
    seen = await _transcript(middleware, scope, case)
    must_not_show(settings.token, watch.take_lines())
    counts["asgi"] += 1
    if not oracle.is_ours(before.get("type"), before.get("path"), before.get("root_path")):
        counts["the application's"] += 1
        if scope != before or seen != await _transcript(application.asgi, before, case) or watch.work != work:
            raise FuzzFailure(f"not as without the middleware: {seen}")
        return
    counts["the routes'"] += 1
    refused = oracle.must_be_refused(
        settings,
        oracle.as_headers(before.get("headers")),
        _first(before.get("client")),
        before.get("http_version"),
    )
    _check(seen, refused, watch.work != work, settings.token, counts)


def _first(client: object) -> object:
    return client[0] if isinstance(client, list | tuple) and client else None


def _check(seen: list[Any], refused: bool, worked: bool, token: str | None, counts: Counter[str]) -> None:
    for message in seen:
        if not isinstance(message, dict):
            raise FuzzFailure(f"raised {message}")
        must_not_show(token, message.get("body", b""), message.get("headers"))
    if not seen:
        counts["left"] += 1  # by a client, in the middle of a capture
        if refused:
            raise FuzzFailure("not refused")
        return
    status = seen[0]["status"]
    counts[f"status {status}"] += 1
    if status not in oracle.STATUSES:
        raise FuzzFailure(f"answered {status}: {seen}")
    if refused and (worked or status not in oracle.REFUSALS):
        raise FuzzFailure(f"not refused, but answered {status}")
    counts["refused"] += refused
