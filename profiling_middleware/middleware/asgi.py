"""ASGI: `app.add_middleware(ProfilingMiddleware)`. Translation of the protocol only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, cast

from profiling_middleware.config import Settings, SettingsError
from profiling_middleware.labels import CURRENT, Served, end_work
from profiling_middleware.middleware.paths import PREFIX, is_admin_path, route_path
from profiling_middleware.middleware.service import ProfilerService
from profiling_middleware.process import OtherSettings
from profiling_middleware.threads import OwnThread

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Longer than the profiler ever takes: whatever it does, a service ends.
_STOP_SECONDS = 10.0


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
        self._started = False
        # Until everything is there, and if that fails: then nothing is looked for, and all passes.
        self._look_for = cast(str, None)
        try:
            self._begin(settings)
        except Exception:
            logger = settings.logger if settings is not None else logging.getLogger("profiling_middleware")
            logger.exception("profiling: stays off: an internal step failed; the service is not affected")

    def _begin(self, settings: Settings | None) -> None:
        try:
            self._service = ProfilerService(Settings.from_env() if settings is None else settings)
        except (SettingsError, OtherSettings) as error:
            self._refused = error
            self._service = ProfilerService(Settings())
        self._service.on_change = self._look_again
        self._look_for = self._what_to_look_for()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            path = scope["path"]
            passes = self._look_for not in path
        except (KeyError, TypeError):  # no path: a lifespan, or a mistake that is the application's to answer
            path, passes = PREFIX, self._look_for is None or scope.get("type") != "lifespan"
        if passes:
            await self.app(scope, receive, send)
            return
        if (PREFIX in path or not self._started) and self._is_for_us(scope):
            await self._handle(scope, receive, send)
            return
        # A request that is labelled and traced, if it can be: whatever fails in that goes no further. Here and not in a
        # method of its own, as each await of the application would go through that, too.
        service, spans, token, entered, span = self._service, None, None, None, None
        served: Served | None = None
        try:
            try:
                make, spans = service.label_maker, service.spans
                if spans is not None:
                    served = span = spans.begin(service.endpoints.of_asgi, scope, send)
                    entered = spans.enter(span)
                    send = span.send
                else:
                    served = Served(service.endpoints.of_asgi, scope)
                if make is not None:
                    token = CURRENT.set(make(Served.labels, served))
            except Exception as error:
                service.failures.note_own(error)
            await self.app(scope, receive, send)
        except BaseException:
            if span is not None:
                span.status = span.status or 500  # what servers and frameworks answer then
            raise
        finally:
            try:
                if span is not None and spans is not None:
                    spans.end(span)
                elif served is not None:
                    served.end()
                if entered is not None:
                    end_work(entered)
                if token is not None:
                    end_work(token)
            except Exception as error:
                service.failures.note_own(error)

    def _is_for_us(self, scope: Scope) -> bool:
        """Whether it is the lifespan, or the routes are asked. Starts the profiler if no lifespan has done so."""
        try:
            kind = scope.get("type")
            if kind == "lifespan":
                return True
            if not self._started:
                self._start()
            return kind == "http" and PREFIX in scope["path"] and is_admin_path(route_path(scope))
        except Exception as error:
            self._service.failures.note_own(error)
            return False

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("type") != "lifespan":
            await self._answer(scope, receive, send)
        elif self._refused is not None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"profiling: {self._refused}"})
        else:
            await self.app(scope, receive, _LifespanSend(self, send))

    def _what_to_look_for(self) -> str:
        # While profiling is off one comparison is all that a request pays. Otherwise, or while there is something to do
        # before the first one may pass, it is looked for what every path contains.
        wants_all = self._service.label_maker is not None or self._service.spans is not None
        return "" if wants_all or (self._wants_start and not self._started) else PREFIX

    def _look_again(self) -> None:
        # Labels and spans change on two threads: whoever writes last must have seen both.
        while self._look_for != (wanted := self._what_to_look_for()):
            self._look_for = wanted

    @property
    def _wants_start(self) -> bool:
        return self._service.wants_start or (self._refused is not None and not self._started)

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
        await asyncio.wait_for(_in_thread(self._service.stop), _STOP_SECONDS)
        self._started = False
        self._look_again()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._service.loaded:
            await _in_thread(self._service.admin)
        # Not when the service starts: most processes are never asked.
        from profiling_middleware.middleware.asgi_answer import answer

        await answer(self._service.admin(), scope, receive, send)


_ENDS = ("lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed")


class _LifespanSend:
    """The application's `send` of one lifespan: sees when start-up and shutdown are complete."""

    def __init__(self, middleware: ProfilingMiddleware, send: Send) -> None:
        self._middleware = middleware
        self._send = send

    async def __call__(self, message: Message) -> None:
        try:
            if message["type"] == "lifespan.startup.complete":
                self._middleware._start()
                self._middleware._open_door()
            elif message["type"] in _ENDS:
                await self._middleware._stop()
        except Exception:
            self._middleware._service.failures.note()
        await self._send(message)


class _LoopWatcher:
    """The running event loop, as a door uses it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def watch(self, descriptor: int, on_readable: Callable[[], object]) -> None:
        self._loop.add_reader(descriptor, on_readable)

    def unwatch(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)


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
