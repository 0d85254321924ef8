"""A service's short life: it starts, is asked for everything, is profiled in every way meanwhile, and ends.

`play` returns what its clients have seen. With settings the applications are wrapped in the middlewares.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import wait
from typing import Any

from faults.applications import asgi_application, wsgi_application
from integration_kit.asgi import Exchange, Transcript, http, lifespan, websocket

from profiling_middleware import Profiler, ProfilingMiddleware, Settings, WSGIProfilingMiddleware
from profiling_middleware.process import THIS_PROCESS

Seen = dict[str, object]

_WINDOW_SECONDS, _CAPTURE_SECONDS = 0.12, 0.06
_START_SECONDS, _RESULTS_SECONDS = 0.5, 1.0
_BODY = b"\0" + bytes(range(256)) * 40
_ADMIN = ("/debug/pprof/", "/debug/pprof/cpu?seconds=0.05&debug=1", "/debug/pprof/trace?last=1", "/debug/pprof/nothing")


class Scenario:
    """Without settings there is no middleware. `tell` hears when requests of the application begin and end."""

    def __init__(self, settings: Settings | None, tell: Callable[[bool], object]) -> None:
        self._settings, self._tell = settings, tell
        self._notes: list[str] = []
        self.seen: Seen = {"notes": self._notes}
        self.trouble: list[str] = []
        """What no client sees, and should not be."""

    def play(self) -> None:
        """Does it all."""
        signal.signal(signal.SIGTERM, lambda *_: self._notes.append("SIGTERM"))
        inner = asgi_application(self._notes)
        asgi: Any = inner if self._settings is None else ProfilingMiddleware(inner, settings=self._settings)
        flask = wsgi_application()
        if self._settings is not None:
            flask.wsgi_app = WSGIProfilingMiddleware(flask.wsgi_app, settings=self._settings)  # type: ignore[method-assign]
        asyncio.run(self._live(asgi, flask))

    async def _live(self, asgi: Any, wsgi: Any) -> None:
        ended, life = asyncio.Event(), Transcript()
        exchange = Exchange(life, lifespan(), [{"type": "lifespan.startup"}])
        receive = exchange.receive

        async def receive_then_wait() -> Any:
            if life.events:
                await ended.wait()
                return {"type": "lifespan.shutdown"}
            return await receive()

        exchange.receive = receive_then_wait  # type: ignore[method-assign]
        running = asyncio.create_task(exchange.run(asgi))
        await _until(lambda: running.done() or any(what == "sent" for what, _ in life.events))
        await self._ask(asgi, wsgi, "before")
        harness = threading.Thread(target=self._capture, name="profiling-harness")
        harness.start()
        await self._ask(asgi, wsgi, "meanwhile")
        await self._ask_to_fork(asgi)
        if self._settings is not None:
            await self._ask_for_profiles(asgi, wsgi)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.002)
        await _until(lambda: not harness.is_alive())
        await self._ask(asgi, wsgi, "after")
        self._look_for_spinning("while it runs")
        ended.set()
        await running
        self.seen["lifespan"] = life.events
        await self._ask(asgi, wsgi, "stopped", few=True)

    # -- what clients do -----------------------------------------------------------------------------------------

    async def _ask(self, asgi: Any, wsgi: Any, when: str, *, few: bool = False) -> None:
        """All at once: of both applications, everything they have."""
        requests = [http("/plain"), http("/items/7"), http("/stream"), http("/fail"), http("/nowhere")]
        bodies: dict[str, Any] = {}
        if not few:
            paths = ("/in-a-thread", "/fail-late", "/locks", "/threads", "/mounted/debug/pprof/7", "/endless", "/talk")
            requests += [http(path) for path in paths[:-1]]
            requests += [http("/echo", "POST"), websocket("/talk", type="websocket")]
            half = len(_BODY) // 2
            bodies["/echo"] = [
                {"type": "http.request", "body": _BODY[1:half], "more_body": True},
                {"type": "http.request", "body": _BODY[half:], "more_body": False},
            ]
            bodies["/talk"] = [
                {"type": "websocket.connect"},
                *({"type": "websocket.receive", "text": text} for text in ("hello", "again")),
                {"type": "websocket.disconnect", "code": 1000},
            ]
        transcripts = {scope["path"]: Transcript() for scope in requests}
        self._tell(True)
        served = threading.Thread(target=self._ask_wsgi, args=(wsgi, when, few), name="server")
        served.start()
        tasks = [
            asyncio.create_task(self._exchange(asgi, scope, transcripts[scope["path"]], bodies.get(scope["path"])))
            for scope in requests
        ]
        await asyncio.wait(tasks)
        await _until(lambda: not served.is_alive())
        self._tell(False)
        for path, transcript in transcripts.items():
            self.seen[f"asgi {path} {when}"] = transcript.events

    async def _ask_to_fork(self, asgi: Any) -> None:
        transcript = Transcript()
        await self._exchange(asgi, http("/fork"), transcript, None)
        self.seen["asgi /fork"] = transcript.events

    async def _exchange(self, app: Any, scope: Any, transcript: Transcript, messages: Any) -> None:
        exchange = Exchange(transcript, scope, messages) if messages else Exchange(transcript, scope)
        task = asyncio.create_task(exchange.run(app))
        if scope["path"] == "/endless":  # a server that gives up
            await _until(lambda: task.done() or len(transcript.events) > 1)
            task.cancel()
        await asyncio.wait([task])

    def _ask_wsgi(self, app: Any, when: str, few: bool) -> None:
        for path in ("/plain", "/items/7", "/stream", "/fail", "/fail-late", "/nowhere", "/mounted/debug/pprof/7"):
            self.seen[f"wsgi {path} {when}"] = _wsgi(app, path)
        if not few:
            self.seen[f"wsgi /echo {when}"] = _wsgi(app, "/echo", _BODY[1:])

    async def _ask_for_profiles(self, asgi: Any, wsgi: Any) -> None:
        """The profiler's own routes may fail, but they end."""
        exchanges = []
        for address in _ADMIN:
            path, _, query = address.partition("?")
            scope = http(path, query_string=query.encode(), headers=[(b"host", b"localhost")])
            exchanges.append(asyncio.create_task(Exchange(Transcript(), scope).run(asgi)))
        thread = threading.Thread(target=_wsgi, args=(wsgi, _ADMIN[0]), daemon=True)
        thread.start()
        _, late = await asyncio.wait(exchanges, timeout=_RESULTS_SECONDS)
        for task in late:  # the client leaves
            task.cancel()
        if late:
            await asyncio.wait(late)
        thread.join(_RESULTS_SECONDS)

    # -- the profiler ----------------------------------------------------------------------------------------------

    def _capture(self) -> None:
        """Captures of all kinds, as windows and on demand, at once."""
        deadline = time.monotonic() + _START_SECONDS
        while self._settings is not None and time.monotonic() < deadline:
            resident = THIS_PROCESS.resident
            if isinstance(resident, Profiler) and resident.started and resident.status.next_window is not None:
                self._record(resident)
                return
            time.sleep(0.002)

    def _record(self, profiler: Profiler) -> None:
        recorder, recordings, windows = profiler._parts.recorder, list[Any](), list[Any]()
        kinds = profiler._parts.kinds
        now = profiler._parts.timer.timeline.now
        attempts: list[Callable[[], object]] = [
            lambda: recorder.call_soon(lambda: windows.extend(recorder.window(kinds, now() + _WINDOW_SECONDS))),
            *(lambda kind=kind: recordings.append(profiler.record(kind, _CAPTURE_SECONDS)) for kind in kinds),
            lambda: recordings.append(profiler.record("block", None)),
            lambda: recordings.append(profiler.record("cpu", 60, upload=False)),
            lambda: recordings[-1].cancel(),
            lambda: profiler.set_block_profile_rate(1),
            lambda: profiler.set_mutex_profile_fraction(1),
            lambda: profiler.status,
        ]
        for attempt in attempts:
            try:
                attempt()
            except Exception as error:  # whoever asks the profiler is told
                self._notes_of_harness(error)
        wait([recording.result for recording in recordings], _RESULTS_SECONDS)
        wait([recording.result for recording in windows], 2 * _WINDOW_SECONDS)

    def _notes_of_harness(self, error: Exception) -> None:
        if not isinstance(error, RuntimeError | ValueError | IndexError):
            self.trouble.append(f"record raised {error!r}")

    def _look_for_spinning(self, when: str) -> None:
        """Two looks: what is still being encoded ends."""
        least = 1.0
        for _ in range(3):
            began, cpu = time.perf_counter(), time.process_time()
            time.sleep(0.04)
            least = min(least, (time.process_time() - cpu) / (time.perf_counter() - began))
            if least < 0.7:
                return
        self.trouble.append(f"threads spin {when}: {least:.0%} of a core")

    def look_after(self) -> None:
        """When all has ended."""
        self._look_for_spinning("at its end")


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - of threads, and of what has no event
        await asyncio.sleep(0.001)


def _wsgi(app: Any, path: str, body: bytes = b"") -> list[object]:
    """As a server calls it: what is answered, in order."""
    seen: list[object] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], object]:
        seen.append(["start", status, sorted(headers)])
        return lambda data: seen.append(["written", data])

    path, _, query = path.partition("?")
    environ = {
        "REQUEST_METHOD": "POST" if body else "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    try:
        parts: Iterable[bytes] = app(environ, start_response)
        try:
            seen += (["part", part] for part in parts)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()
    except BaseException as error:
        seen.append(["raised", type(error).__name__, str(error)])
    if sys.exc_info()[0] is not None:
        seen.append(["an exception is being handled"])
    return seen
