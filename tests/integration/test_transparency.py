"""An application behaves as without the middleware: every scenario is run plain and profiled, and must not differ."""

from __future__ import annotations

import asyncio
import contextvars
import http.client
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from integration_kit.asgi import Exchange, Transcript
from integration_kit.asgi import http as http_scope
from integration_kit.asgi import lifespan as lifespan_scope
from integration_kit.asgi import websocket as websocket_scope
from integration_kit.http import open_request, receive_all
from integration_kit.servers import Server, Servers
from integration_kit.waiting import eventually
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from profiling_middleware import Profiler, ProfilingMiddleware, Settings
from profiling_middleware.process import THIS_PROCESS

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
Wrap = Callable[[ASGIApp], ASGIApp]
Scenario = Callable[[Wrap, Transcript], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """Registers one: it gets what wraps an application, and notes what happens."""
    SCENARIOS[function.__name__] = function
    return function


def unwrapped(app: ASGIApp) -> ASGIApp:
    return app


class Profiling:
    """Off, or on with a window open; wraps applications and leaves nothing behind."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._made: list[ProfilingMiddleware] = []

    def wrap(self, app: ASGIApp) -> ASGIApp:
        self._made.append(ProfilingMiddleware(app, settings=self.settings))
        return self._made[-1]

    def close(self) -> None:
        for middleware in self._made:
            middleware._service.stop()  # as its lifespan does, which not every scenario has
        if THIS_PROCESS.resident is not None:
            THIS_PROCESS.resident.stop()


@pytest.fixture
def profiling(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Profiling]:
    """As the parameter says: `off`, or `on` and in the middle of a window."""
    on, store = request.param == "on", (tmp_path / "store").as_uri()
    settings = Settings(
        enabled=on, store=store, duration=60, types=("cpu", "wall"), environment="dev", service_name="shop"
    )
    profiling = Profiling(settings)
    if on:
        Profiler.shared(settings).start()
    yield profiling
    profiling.close()


@pytest.mark.parametrize("profiling", ["off", "on"], indirect=True)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_changes(name: str, loop: str, profiling: Profiling) -> None:
    plain = _run(name, loop, unwrapped)
    assert plain.events
    assert _run(name, loop, profiling.wrap).events == plain.events


def _run(name: str, loop: str, wrap: Wrap) -> Transcript:
    transcript = Transcript()

    async def bounded() -> None:
        await asyncio.wait_for(SCENARIOS[name](wrap, transcript), 20)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())
    return transcript


# -- responses ---------------------------------------------------------------------------------------------------


def _in_both_places(wrap: Wrap, routes: list[Any], **options: Any) -> list[ASGIApp]:
    """Around a Starlette application, and inside of it, where add_middleware puts it."""
    if wrap is unwrapped:
        return [Starlette(routes=routes, **options), Starlette(routes=routes, **options)]
    inside = Starlette(routes=routes, middleware=[Middleware(_Wrapped, wrap=wrap)], **options)
    return [wrap(Starlette(routes=routes, **options)), inside]


class _Wrapped:
    """`wrap` as the class that Starlette wants."""

    def __init__(self, app: ASGIApp, wrap: Wrap) -> None:
        self._app = wrap(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


@scenario
async def responses(wrap: Wrap, transcript: Transcript) -> None:
    async def endpoint(request: Request) -> Response:
        response = JSONResponse({"path": request.url.path, "query": request.url.query}, 201)
        response.headers.append("x-twice", "1")
        response.headers.append("x-twice", "2")
        response.set_cookie("a", "b")
        return response

    for app in _in_both_places(wrap, [Route("/a", endpoint, methods=["GET", "POST"])]):
        for method in ("GET", "HEAD", "POST", "DELETE"):
            await Exchange(transcript, http_scope("/a", method, query_string=b"q=1")).run(app)
        for path in ("/", "/missing", "/debug", "/debug/pprofx", "/x/debug/pprof/", "/debug/pprof%2f"):
            await Exchange(transcript, http_scope(path)).run(app)


@scenario
async def streaming(wrap: Wrap, transcript: Transcript) -> None:
    async def chunks() -> AsyncIterator[str]:
        for number in range(4):
            transcript.note("made", number)
            yield f"chunk {number}"
            await asyncio.sleep(0.001)

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(chunks())

    def in_threads(request: Request) -> Response:
        return StreamingResponse((f"chunk {number}" for number in range(4)), media_type="text/csv")

    for app in _in_both_places(wrap, [Route("/a", endpoint), Route("/b", in_threads)]):
        await Exchange(transcript, http_scope("/a")).run(app)
        await Exchange(transcript, http_scope("/b")).run(app)


@scenario
async def files(wrap: Wrap, transcript: Transcript) -> None:
    async def endpoint(request: Request) -> Response:
        return FileResponse(__file__, filename="test.py")

    for app in _in_both_places(wrap, [Route("/a", endpoint)]):
        await Exchange(transcript, http_scope("/a")).run(app)
        await Exchange(transcript, http_scope("/a", "HEAD")).run(app)
        await Exchange(transcript, http_scope("/a", extensions={"http.response.pathsend": {}})).run(app)
        await Exchange(transcript, http_scope("/a", headers=[(b"range", b"bytes=5-20")])).run(app)


@scenario
async def request_bodies(wrap: Wrap, transcript: Transcript) -> None:
    async def endpoint(request: Request) -> Response:
        async for chunk in request.stream():
            transcript.note("chunk", chunk)
        return PlainTextResponse("thanks")

    messages = [
        {"type": "http.request", "body": b"one", "more_body": True},
        {"type": "http.request", "body": b"two", "more_body": True},
        {"type": "http.request", "body": b"", "more_body": False},
    ]
    broken_off = [messages[0], {"type": "http.disconnect"}]
    for app in _in_both_places(wrap, [Route("/a", endpoint, methods=["POST"])]):
        await Exchange(transcript, http_scope("/a", "POST"), messages).run(app)
        await Exchange(transcript, http_scope("/a", "POST"), broken_off).run(app)


@scenario
async def messages_are_the_same_objects(wrap: Wrap, transcript: Transcript) -> None:
    scope = http_scope("/a", extensions={"http.response.trailers": {}, "http.response.debug": {}})
    sent: list[object] = []
    given = {"type": "http.request", "body": b"", "more_body": False, "unknown": 1}

    async def app(inner_scope: Scope, receive: Receive, send: Send) -> None:
        transcript.note("same scope", inner_scope is scope)
        transcript.note("same request", await receive() is given)
        for message in (
            {"type": "http.response.start", "status": 200, "headers": [], "trailers": True},
            {"type": "http.response.body", "body": b"a", "more_body": False},
            {"type": "http.response.trailers", "headers": [(b"a", b"b")], "more_trailers": False},
            {"type": "made.up", "value": 1},
        ):
            await send(message)
            transcript.note("same message", sent[-1] is message)
        inner_scope["added"] = 1

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return given

    await wrap(app)(scope, receive, send)
    transcript.note("scope", sorted(scope))


@scenario
async def other_scopes(wrap: Wrap, transcript: Transcript) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        transcript.note("called", sorted(scope))
        await send({"type": "email.sent"})

    await Exchange(transcript, {"type": "email"}).run(wrap(app))
    await Exchange(transcript, {"type": "email", "path": "/debug/pprof/"}).run(wrap(app))


# -- errors ------------------------------------------------------------------------------------------------------


@scenario
async def exceptions(wrap: Wrap, transcript: Transcript) -> None:
    async def before(request: Request) -> Response:
        raise ValueError("before the start")

    async def chunks() -> AsyncIterator[str]:
        yield "a beginning"
        raise ValueError("after the start")

    async def after(request: Request) -> Response:
        return StreamingResponse(chunks())

    async def not_closed(request: Request) -> Response:
        raise BaseExceptionGroup("several", [ValueError("one"), KeyboardInterrupt("two")])

    def handled(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"handled {error}", 503)

    async def handled_route(request: Request) -> Response:
        raise LookupError("known")

    routes = [
        Route("/before", before),
        Route("/after", after),
        Route("/group", not_closed),
        Route("/handled", handled_route),
    ]
    for debug in (False, True):
        for app in _in_both_places(wrap, routes, debug=debug, exception_handlers={LookupError: handled}):
            for path in ("/after", "/group", "/handled", *(["/before"] if not debug else [])):
                await Exchange(transcript, http_scope(path)).run(app)


@scenario
async def background_tasks(wrap: Wrap, transcript: Transcript) -> None:
    async def slow(number: int) -> None:
        await asyncio.sleep(0.002)
        transcript.note("background", number)

    def in_thread() -> None:
        transcript.note("background in a thread")

    async def failing() -> None:
        transcript.note("background fails")
        raise ValueError("in the background")

    async def several(request: Request) -> Response:
        tasks = BackgroundTasks([BackgroundTask(slow, 1), BackgroundTask(in_thread), BackgroundTask(slow, 2)])
        return PlainTextResponse("several", background=tasks)

    async def one_fails(request: Request) -> Response:
        return PlainTextResponse("failing", background=BackgroundTask(failing))

    for app in _in_both_places(wrap, [Route("/several", several), Route("/failing", one_fails)]):
        await Exchange(transcript, http_scope("/several")).run(app)
        await Exchange(transcript, http_scope("/failing")).run(app)
        await Exchange(transcript, http_scope("/several"), leave_after=1).run(app)


@scenario
async def clients_that_leave(wrap: Wrap, transcript: Transcript) -> None:
    async def endless() -> AsyncIterator[str]:
        number = 0
        try:
            while True:
                yield f"chunk {number}"
                number += 1
                await asyncio.sleep(0)
        except BaseException as error:
            transcript.note("stream was ended by", type(error).__name__)
            raise
        finally:
            transcript.note("stream cleaned up")

    async def stream(request: Request) -> Response:
        return StreamingResponse(endless())

    async def waits(request: Request) -> Response:
        for _ in range(3):
            transcript.note("is disconnected", await request.is_disconnected())
        message = await request.receive()
        transcript.note("told", message["type"])
        return PlainTextResponse("nobody reads this")

    async def reads(request: Request) -> Response:
        try:
            await request.body()
        except ClientDisconnect:
            transcript.note("client disconnect")
            raise
        return PlainTextResponse("whole")

    routes = [Route("/stream", stream), Route("/waits", waits), Route("/reads", reads)]
    old_protocol = {"version": "3.0", "spec_version": "2.3"}
    gone = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    for app in _in_both_places(wrap, routes):
        await Exchange(transcript, http_scope("/stream"), break_after=3).run(app)
        await Exchange(transcript, http_scope("/waits"), gone).run(app)
        await Exchange(transcript, http_scope("/reads"), [{"type": "http.disconnect"}]).run(app)
        leaving = Exchange(Transcript(), http_scope("/stream", asgi=old_protocol), leave_after=3)
        await leaving.run(app)
    # Up to ASGI 2.3 the stream is cancelled from another task: how far it had come then is not fixed.
    transcript.note("cleaned up", ("stream cleaned up", None) in transcript.events)


@scenario
async def cancellation(wrap: Wrap, transcript: Transcript) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            transcript.note("running")
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            transcript.note("cancelled", str(error))
            raise
        finally:
            await asyncio.sleep(0)
            transcript.note("cleaned up")

    for scope in (http_scope("/a"), websocket_scope("/a"), lifespan_scope()):
        task = asyncio.create_task(Exchange(transcript, scope).run(wrap(app)))
        await asyncio.sleep(0.01)
        task.cancel("shutting down")
        with pytest.raises(asyncio.CancelledError):
            await task


@scenario
async def tasks_and_context(wrap: Wrap, transcript: Transcript) -> None:
    """No task and no context of its own: what an endpoint sets, whoever called it sees."""
    given: contextvars.ContextVar[str] = contextvars.ContextVar("given", default="nothing")
    answered: contextvars.ContextVar[str] = contextvars.ContextVar("answered", default="nothing")
    caller = asyncio.current_task()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        transcript.note("same task", asyncio.current_task() is caller)
        transcript.note("given", given.get())
        answered.set("from inside")

    for scope in (http_scope("/a"), websocket_scope("/a"), lifespan_scope(), {"type": "email"}):
        given.set(f"to {scope['type']}")
        answered.set("nothing")
        await Exchange(transcript, scope).run(wrap(app))
        transcript.note("answered", answered.get())
    transcript.note("tasks", len(asyncio.all_tasks()))


@scenario
async def many_at_once(wrap: Wrap, transcript: Transcript) -> None:
    async def endpoint(request: Request) -> Response:
        await asyncio.sleep(0.001)
        return PlainTextResponse(request.path_params["number"])

    for app in _in_both_places(wrap, [Route("/{number}", endpoint)]):
        each = [Transcript() for _ in range(100)]
        await asyncio.gather(*(Exchange(own, http_scope(f"/{n}")).run(app) for n, own in enumerate(each)))
        for own in each:
            transcript.note("answers", own.events)


# -- websockets --------------------------------------------------------------------------------------------------


@scenario
async def websockets(wrap: Wrap, transcript: Transcript) -> None:
    async def echo(socket: WebSocket) -> None:
        await socket.accept("chat", headers=[(b"x-a", b"1")])
        async for text in socket.iter_text():
            await socket.send_text(text)
        transcript.note("client has left")

    async def closing(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json({"bye": 1})
        await socket.close(4000, "enough")

    async def rejecting(socket: WebSocket) -> None:
        await socket.close(4001)

    async def denying(socket: WebSocket) -> None:
        await socket.send_denial_response(PlainTextResponse("no", 418))

    async def failing(socket: WebSocket) -> None:
        await socket.accept()
        raise ValueError("in a websocket")

    async def failing_early(socket: WebSocket) -> None:
        raise ValueError("before accept")

    endpoints = (echo, closing, rejecting, denying, failing, failing_early)
    routes = [WebSocketRoute(f"/{endpoint.__name__}", endpoint) for endpoint in endpoints]
    messages = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "one"},
        {"type": "websocket.receive", "text": "two"},
        {"type": "websocket.disconnect", "code": 1001, "reason": "going"},
    ]
    for app in _in_both_places(wrap, routes):
        for route in (*routes, None):
            scope = websocket_scope(route.path if route else "/missing", extensions={"websocket.http.response": {}})
            await Exchange(transcript, scope, messages).run(app)


@scenario
async def websockets_on_our_path(wrap: Wrap, transcript: Transcript) -> None:
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    for app in _in_both_places(wrap, [WebSocketRoute("/debug/pprof/cpu", endpoint)]):
        await Exchange(transcript, websocket_scope("/debug/pprof/cpu"), [{"type": "websocket.connect"}]).run(app)


# -- lifespan ----------------------------------------------------------------------------------------------------

_LIFE = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]


def _living(transcript: Transcript, fails: str) -> Callable[[Starlette], Any]:
    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[dict[str, str]]:
        transcript.note("startup")
        if fails == "startup":
            raise RuntimeError("startup fails")
        yield {"shared": "state"}
        transcript.note("shutdown")
        if fails == "shutdown":
            raise RuntimeError("shutdown fails")

    return life


@scenario
async def lifespan_state(wrap: Wrap, transcript: Transcript) -> None:
    async def endpoint(request: Request) -> Response:
        request.state.own = 1
        return PlainTextResponse(request.state.shared)

    for app in _in_both_places(wrap, [Route("/a", endpoint)], lifespan=_living(transcript, "")):
        scope = lifespan_scope()
        await Exchange(transcript, scope, _LIFE).run(app)
        transcript.note("state", scope["state"])
        await Exchange(transcript, http_scope("/a", state=dict(scope["state"]))).run(app)


@scenario
async def lifespan_failures(wrap: Wrap, transcript: Transcript) -> None:
    for fails in ("startup", "shutdown"):
        for app in _in_both_places(wrap, [], lifespan=_living(transcript, fails)):
            await Exchange(transcript, lifespan_scope(), _LIFE).run(app)


@scenario
async def lifespan_unsupported(wrap: Wrap, transcript: Transcript) -> None:
    async def asserting(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "only http here"
        await PlainTextResponse("http")(scope, receive, send)

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await PlainTextResponse("http")(scope, receive, send)

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    for app in map(wrap, (asserting, silent, failing)):
        await Exchange(transcript, lifespan_scope(), _LIFE).run(app)
    # Servers then serve without it.
    for app in map(wrap, (asserting, silent)):
        await Exchange(transcript, http_scope("/a")).run(app)


# -- mounts ------------------------------------------------------------------------------------------------------


@scenario
async def mounted_with_the_middleware_inside(wrap: Wrap, transcript: Transcript) -> None:
    async def endpoint(request: Request) -> Response:
        transcript.note("scope", [request.scope[key] for key in ("path", "root_path", "raw_path")])
        transcript.note("urls", [str(request.url), str(request.base_url), str(request.url_for("here"))])
        return PlainTextResponse(request.scope["path"])

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(websocket.url))
        await websocket.close()

    # Inside of it only: Starlette finds the routes below a mount by the attribute `routes` of what is mounted.
    _, sub = _in_both_places(wrap, [Route("/here", endpoint, name="here"), WebSocketRoute("/socket", socket)])
    app = Starlette(routes=[Mount("/sub", sub), Mount("/debug/pprof", sub, name="alike")])
    for root in ("", "/proxied"):
        for path in ("/sub/here", "/sub/", "/sub/missing", "/debug/pprof/here"):
            await Exchange(transcript, http_scope(f"{root}{path}", root_path=root)).run(app)
        scope = websocket_scope(f"{root}/sub/socket", root_path=root)
        await Exchange(transcript, scope, [{"type": "websocket.connect"}]).run(app)


@pytest.mark.parametrize("profiling", ["off", "on"], indirect=True)
@pytest.mark.parametrize("root", ["", "/proxied"])
def test_the_routes_of_a_mounted_application_lie_below_it(root: str, profiling: Profiling) -> None:
    _, sub = _in_both_places(profiling.wrap, [Route("/here", lambda request: PlainTextResponse("here"))])
    app = Starlette(routes=[Mount("/sub", sub)])

    def get(path: str, query: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
        transcript = Transcript()
        scope = http_scope(f"{root}{path}", root_path=root, query_string=query)
        asyncio.run(Exchange(transcript, scope).run(app))
        start, body = (event for what, event in transcript.events if what == "sent")
        headers = {name.lower(): value for name, value in start["headers"]}
        return start["status"], headers, body["body"]

    assert get("/sub/here")[2] == b"here"
    assert get("/sub/debug/pprof/cmdline")[0] == 200
    assert get("/debug/pprof/cmdline")[0] == 404
    assert get("/sub/debug/pprof")[1][b"location"] == f"{root}/sub/debug/pprof/".encode()
    status, headers, _ = get("/sub/debug/pprof/cpu", b"seconds=0.05")
    assert (status, headers[b"x-profile-upload"]) == (200, b"queued")


# -- through a real server ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=LOOPS)
def pair(request: pytest.FixtureRequest, shared_servers: Servers) -> dict[str, Server]:
    """The same service plain and, with a window open, profiled."""
    return _pair(shared_servers, request.param)


def _pair(servers: Servers, loop: str, **settings: str) -> dict[str, Server]:
    profiled = {"PROFILE_ENABLED": "1", "PROFILE_STORE": "file:///dev/null/nowhere", "PROFILE_TYPES": "cpu,wall"}
    return {
        "plain": servers.uvicorn({"TEST_PLAIN": "1", **settings}, app="transparent:app", loop=loop),
        "profiled": servers.uvicorn({**profiled, **settings}, app="transparent:app", loop=loop),
    }


def _notes(server: Server) -> list[str]:
    return server.lines("note:")


def _talk(server: Server, path: str, *said: str) -> list[object]:
    """What a websocket client hears, and how it ends."""
    heard: list[object] = []
    try:
        with connect(f"{server.url.replace('http', 'ws')}{path}", subprotocols=["chat"], proxy=None) as socket:  # type: ignore[list-item]
            heard.append((socket.subprotocol, socket.response.headers["x-extra"] if socket.response else None))
            for text in said:
                socket.send(text)
                heard.append(socket.recv(10))
    except ConnectionClosed as closed:
        heard.append((closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else "broken off")
    except InvalidStatus as refused:
        heard.append((refused.response.status_code, refused.response.body))
    return heard


@pytest.mark.server
def test_websockets_through_a_real_server(pair: dict[str, Server]) -> None:
    talks = [
        ("/echo", "one", "two", "x" * 300_000),
        ("/echo", "one", "close"),
        ("/echo", "fail"),
        ("/reject",),
        ("/deny",),
        ("/missing",),
    ]
    for talk in talks:
        heard = {name: _talk(server, *talk) for name, server in pair.items()}
        assert heard["plain"] == heard["profiled"]
        assert heard["plain"], talk
    for server in pair.values():
        eventually(lambda server=server: "note: websocket disconnected" in _notes(server), "it notices that it is over")


@pytest.mark.server
def test_responses_through_a_real_server(pair: dict[str, Server]) -> None:
    for request in (
        b"GET /greeting HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"HEAD /greeting HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /stream HTTP/1.0\r\n\r\n",
        b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\n12345",
        b"POST /body HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n12",
        b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /fail-late HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /greeting HTTP/1.1\r\nHost: a\r\n\r\nGET /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ):
        heard = {name: _raw(server, request) for name, server in pair.items()}
        assert heard["plain"] == heard["profiled"]
        assert heard["plain"].startswith(b"HTTP/1."), request


def _raw(server: Server, request: bytes) -> bytes:
    """Every byte of the answers, but for the date."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.connect()
    with connection.sock as sock:
        sock.sendall(request)
        lines = receive_all(sock).split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"date: "))


@pytest.mark.server
def test_a_client_that_leaves_ends_its_stream(pair: dict[str, Server]) -> None:
    for server in pair.values():
        with open_request(f"{server.url}/endless") as connection:
            assert connection.recv(1000)
        eventually(lambda server=server: "note: endless was ended" in _notes(server), "the stream ends")


@pytest.mark.server
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("fails", ["startup", "shutdown", "nothing"])
def test_a_life_that_fails_fails_alike(fails: str, loop: str, servers: Servers) -> None:
    ends = {}
    for name, server in _pair(servers, loop, TEST_FAIL=fails).items():
        if fails != "startup":
            assert server.get("/greeting").text == "hello"
            server.process.terminate()
        code = server.process.wait(20)
        ends[name] = code, _notes(server), len(server.lines(f"RuntimeError: {fails} fails"))
    assert ends["plain"] == ends["profiled"]


def test_no_thread_of_the_profiler_is_left_in_this_process() -> None:
    """Last in this file: what the scenarios started has ended with them."""
    eventually(
        lambda: [thread.name for thread in threading.enumerate() if thread.name.startswith("profiling-")] == [],
        "all threads have ended",
    )
