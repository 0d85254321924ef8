"""ASGI: `app.add_middleware(ProfilingMiddleware)`. Translation of the protocol only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Token
from typing import TYPE_CHECKING, Any

from profiling_middleware.config import Settings, SettingsError
from profiling_middleware.labels import CURRENT, end_work
from profiling_middleware.middleware.messages import PREFIX, AdminRequest, AdminResponse, is_admin_path
from profiling_middleware.middleware.service import ProfilerService
from profiling_middleware.model import Body
from profiling_middleware.threads import OwnThread

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from profiling_middleware.middleware.admin import Pending
    from profiling_middleware.tracing.requests import RequestSpans


class ProfilingMiddleware:
    """Starts and stops the profiler with the application and answers `/debug/pprof/`; all else passes untouched.

    With profiling off nothing is started; the routes still answer those who may.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings | None = None) -> None:
        """Takes the settings of the environment when none are given.

        Settings that cannot be used, and others than those of the profiler that this process has already, are refused
        at the lifespan's start-up. (Frameworks build middlewares inside the first call, and servers take what is
        raised there for an application without a lifespan.) Without a lifespan they are logged, and the application
        is served without profiling.
        """
        self.app = app
        self._refused: Exception | None = None
        try:
            self._service = ProfilerService(Settings.from_env() if settings is None else settings)
        except (SettingsError, RuntimeError) as error:
            self._refused = error
            self._service = ProfilerService(Settings())
        self._started = False
        self._look_for = self._what_to_look_for()
        self._service.on_tracing = self._look_again

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            passes = self._look_for not in scope["path"]
        except KeyError:  # a lifespan
            passes = False
        if passes:
            await self.app(scope, receive, send)
        elif scope["type"] == "lifespan" and self._refused is not None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"profiling: {self._refused}"})
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, _LifespanSend(self, send))
        else:
            self._start()
            if scope["type"] == "http" and PREFIX in scope["path"] and is_admin_path(_route_path(scope)):
                await self._answer(scope, receive, send)
            else:
                await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request whose samples are labelled, if they can be."""
        make, spans = self._service.label_maker, self._service.spans
        if spans is not None:
            await self._serve_traced(spans, scope, receive, send)
            return
        if make is None:
            await self.app(scope, receive, send)
            return
        token = CURRENT.set(make(self._service.endpoints.of_asgi, scope))
        try:
            await self.app(scope, receive, send)
        finally:
            end_work(token)

    async def _serve_traced(self, spans: RequestSpans, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._service
        make, resolve = service.label_maker, service.endpoints.of_asgi
        tokens: list[Token[Any]] = [CURRENT.set(make(resolve, scope))] if make is not None else []
        span = spans.begin(resolve, scope, send)
        tokens.append(spans.enter(span))
        try:
            await self.app(scope, receive, span.send)
        except BaseException:
            span.status = span.status or 500  # what servers and frameworks answer then
            raise
        finally:
            spans.end(span)
            for token in tokens:
                end_work(token)

    def _what_to_look_for(self) -> str:
        # With profiling off one comparison is all that a request pays. Otherwise, or while there is something to do
        # before the first one may pass, it is looked for what every path contains.
        return "" if self._wants_start or self._service.spans is not None else PREFIX

    def _look_again(self) -> None:
        self._look_for = self._what_to_look_for()

    @property
    def _wants_start(self) -> bool:
        return self._service.settings.enabled or (self._refused is not None and not self._started)

    def _start(self) -> None:
        """Begins periodic profiling: at the end of the lifespan's start-up, else at the first request."""
        if not self._started and self._wants_start:
            self._started = True
            self._look_again()
            if self._refused is not None:
                self._service.settings.logger.error("profiling: stays off: %s", self._refused)
            else:
                self._service.start()

    def _open_door(self) -> None:
        """Other workers can reach this one while its profiling is off."""
        if self._refused is None and not self._service.settings.enabled:
            self._service.open_door(_LoopWatcher())

    async def _stop(self) -> None:
        self._service.close_door()
        await _in_thread(self._service.stop)
        self._started = False
        self._look_again()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._service.loaded:
            await _in_thread(self._service.admin)
        answer = self._service.admin().answer(_request(scope))
        response = answer if isinstance(answer, AdminResponse) else await _wait(answer, receive)
        if response is not None:
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.all_headers()]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            await _send_body(response.body, send)


_ENDS = ("lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed")


class _LifespanSend:
    """The application's `send` of one lifespan: sees when start-up and shutdown are complete."""

    def __init__(self, middleware: ProfilingMiddleware, send: Send) -> None:
        self._middleware = middleware
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            self._middleware._start()
            self._middleware._open_door()
        elif message["type"] in _ENDS:
            await self._middleware._stop()
        await self._send(message)


class _LoopWatcher:
    """The running event loop, as a door uses it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def watch(self, descriptor: int, on_readable: Callable[[], object]) -> None:
        self._loop.add_reader(descriptor, on_readable)

    def unwatch(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)


def _route_path(scope: Scope) -> str:
    """The path within this application: servers and mounts put their prefix before it, and say so in root_path."""
    path: str = scope.get("path", "")
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _request(scope: Scope) -> AdminRequest:
    client, server = scope.get("client"), scope.get("server")
    return AdminRequest(
        method=scope["method"],
        path=_route_path(scope),
        root=scope.get("root_path", ""),
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=[(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]],
        peer=client[0] if client else None,
        peer_port=client[1] if client else None,
        own_port=server[1] if server else None,
        http_version=scope.get("http_version", ""),
        can_wait=True,
    )


async def _wait(pending: Pending, receive: Receive) -> AdminResponse | None:
    """The response once the capture has ended, None when the client left before: then nothing goes on."""
    result = asyncio.wrap_future(pending.result)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
        return pending.response() if result.done() else None
    finally:
        if not result.done():
            pending.cancel()
        # Cancelled even if done: nobody else will look at what became of them.
        for waiting in (result, gone):
            if not waiting.cancel() and not waiting.cancelled():
                waiting.exception()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_body(body: Body, send: Send) -> None:
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body})
        return
    for chunk in body.chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _in_thread(work: Callable[[], object]) -> None:
    """Runs `work` on a thread of its own: the loop's executor may be full of the application's work."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    OwnThread(run, "profiling-service").start()
    await asyncio.wrap_future(done)
