"""What requests are labelled with: their endpoints, never their paths; and how long."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import flask
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from profiling_middleware.config import Settings
from profiling_middleware.failures import Failures
from profiling_middleware.labels import CURRENT, Labels, Resolve, Served, end_work
from profiling_middleware.middleware import work
from profiling_middleware.middleware.asgi import ProfilingMiddleware
from profiling_middleware.middleware.work import Endpoints
from profiling_middleware.middleware.wsgi import WSGIProfilingMiddleware
from profiling_middleware.middleware.wsgi_work import Work as WSGIWork
from profiling_middleware.model import Label
from profiling_middleware.tracing.buffer import TraceBuffer
from profiling_middleware.tracing.requests import WORKS_FOR, RequestSpans

pytestmark = pytest.mark.usefixtures("service_has_ended")


class Work:
    """What an engine that reads labels makes of a request: here it can be read by the test."""

    def __init__(self, resolve: Resolve, subject: Any) -> None:
        self._resolve, self._subject = resolve, subject

    @property
    def labels(self) -> Labels | None:
        return self._resolve(self._subject)


def labels_now() -> Labels | str | None:
    """What a sample that is taken here would be labelled with."""
    current = CURRENT.get(None)
    return current.labels if isinstance(current, Work) else "nobody's"


def labels(endpoint: str, method: str = "GET") -> Labels:
    return Label("endpoint", endpoint), Label("method", method)


@pytest.fixture
def endpoints() -> Endpoints:
    return Endpoints()


@pytest.fixture
def settings(logger: logging.Logger) -> Settings:
    return Settings(service_name="watcher")


@pytest.fixture
def labelled_asgi(settings: Settings) -> Callable[[Any], Any]:
    """The middleware as it is once the profiler runs, without one."""

    def wrap(app: Any) -> Any:
        middleware = ProfilingMiddleware(app, settings=settings)
        middleware._look_for = ""
        middleware._started = True
        middleware._service.label_maker = Work
        return middleware

    return wrap


@pytest.fixture
def labelled_wsgi(settings: Settings) -> Callable[[Any], Any]:
    """The middleware as it is once the profiler runs, without one."""

    def wrap(app: Any) -> Any:
        middleware = WSGIProfilingMiddleware(app, settings=settings)
        middleware._look_for = ""
        middleware._service.label_maker = Work
        return middleware

    return wrap


# -- Starlette's routes -----------------------------------------------------------------------------------------------


def ask(app: Any, path: str, method: str = "GET", **changes: Any) -> bytes:
    """What an ASGI application answers; a websocket is opened and left."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [],
        **changes,
    }
    incoming = [{"type": "websocket.connect"}] if scope["type"] == "websocket" else [{"type": "http.request"}]
    body = b""

    async def receive() -> Any:
        if incoming:
            return incoming.pop(0)
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        nonlocal body
        body += message.get("body", b"")

    asyncio.run(app(scope, receive, send))
    return body


class Seen:
    """What samples of each request would have been labelled with while it was served."""

    def __init__(self) -> None:
        self.labels: list[Any] = []

    async def __call__(self, request: Request) -> Response:
        self.labels.append(labels_now())
        return PlainTextResponse("seen")

    async def of_websocket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.labels.append(labels_now())
        await websocket.close()


@pytest.fixture
def seen() -> Seen:
    return Seen()


def routed(seen: Seen) -> Starlette:
    async def item(request: Request) -> Response:
        return await seen(request)

    async def inner(request: Request) -> Response:
        return await seen(request)

    async def deepest(request: Request) -> Response:
        return await seen(request)

    async def socket(websocket: WebSocket) -> None:
        await seen.of_websocket(websocket)

    return Starlette(
        routes=[
            Route("/items/{id:int}", item, methods=["GET", "DELETE"]),
            WebSocketRoute("/feed/{topic}", socket),
            Mount(
                "/shop/{tenant}",
                routes=[Route("/cart", inner), Mount("/v1", app=Router([Route("/x/{y}", deepest)]))],
            ),
        ]
    )


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("GET", "/items/4711", "/items/{id:int}"),
        ("DELETE", "/items/4711", "/items/{id:int}"),
    ],
)
def test_a_request_is_labelled_with_its_routes_template(
    method: str, path: str, endpoint: str, labelled_asgi: Callable[[Any], Any], seen: Seen
) -> None:
    app = labelled_asgi(routed(seen))
    for _ in range(2):
        assert ask(app, path, method) == b"seen"

    assert seen.labels[0] == labels(endpoint, method)
    assert seen.labels[0] is seen.labels[1]


def test_a_websocket_has_an_endpoint_and_no_method(labelled_asgi: Callable[[Any], Any], seen: Seen) -> None:
    app = labelled_asgi(routed(seen))

    async def of_a_server(scope: Any, receive: Any, send: Any) -> None:
        del scope["method"]
        await app(scope, receive, send)

    ask(of_a_server, "/feed/prices", type="websocket")

    assert seen.labels == [(Label("endpoint", "/feed/{topic}"),)]


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [("/shop/acme/cart", "/shop/{tenant}/cart"), ("/shop/acme/v1/x/1", "/shop/{tenant}/v1/x/{y}")],
)
def test_a_mounted_route_is_labelled_with_the_whole_way_to_it(
    labelled_asgi: Callable[[Any], Any], seen: Seen, path: str, endpoint: str
) -> None:
    assert ask(labelled_asgi(routed(seen)), path) == b"seen"

    assert seen.labels == [labels(endpoint)]


def test_a_mounted_application_is_labelled_with_the_whole_way_to_it(
    labelled_asgi: Callable[[Any], Any], seen: Seen
) -> None:
    async def inner(request: Request) -> Response:
        return await seen(request)

    mounted = Starlette(routes=[Route("/orders/{id}", inner)])
    outer = Starlette(routes=[Mount("/api", app=mounted)])
    assert ask(labelled_asgi(outer), "/api/orders/7") == b"seen"

    assert seen.labels == [labels("/api/orders/{id}")]


def test_the_route_that_a_framework_names_is_believed(endpoints: Endpoints) -> None:
    """As FastAPI does from 0.110 on: `scope["route"]` has the path."""
    route = SimpleNamespace(path="/users/{user_id}")

    assert endpoints.of_asgi({"method": "PATCH", "route": route, "endpoint": print}) == labels(
        "/users/{user_id}", "PATCH"
    )


def test_an_endpoint_in_no_route_has_its_own_name(endpoints: Endpoints) -> None:
    class Resource:
        """An endpoint that is an object and has no name."""

    found = endpoints.of_asgi({"method": "GET", "endpoint": test_an_endpoint_in_no_route_has_its_own_name})
    nameless = endpoints.of_asgi({"method": "GET", "endpoint": Resource()})

    assert found == labels(f"{__name__}.test_an_endpoint_in_no_route_has_its_own_name")
    assert nameless == labels(f"{__name__}.{Resource.__qualname__}")


def test_a_request_that_no_router_has_taken_yet_has_no_labels_yet(endpoints: Endpoints) -> None:
    scope: dict[str, Any] = {"method": "GET", "path": "/items/1"}
    assert endpoints.of_asgi(scope) is None

    scope["endpoint"] = print
    assert endpoints.of_asgi(scope) == labels("builtins.print")


def test_what_no_route_takes_has_no_labels(labelled_asgi: Callable[[Any], Any], seen: Seen) -> None:
    async def not_found(request: Request, error: Exception) -> Response:
        return await seen(request)

    app = Starlette(exception_handlers={404: not_found})
    ask(labelled_asgi(app), "/etc/passwd")

    assert seen.labels == [None]


def test_equal_endpoints_are_the_same_labels(endpoints: Endpoints) -> None:
    one, other = SimpleNamespace(path="/a"), SimpleNamespace(path="/a")

    assert endpoints.of_asgi({"method": "GET", "route": one}) is endpoints.of_asgi({"method": "GET", "route": other})


def test_an_endpoint_at_the_address_of_one_that_is_gone_is_another(endpoints: Endpoints) -> None:
    """Templates are kept by the endpoint's id, which may be used again only when the endpoint is not held."""
    names = set()
    for number in range(50):

        async def handler(request: Request) -> None: ...

        handler.__qualname__ = f"handler{number}"
        found = endpoints.of_asgi({"method": "GET", "endpoint": handler})
        assert found is not None
        names.add(found[0].value)
        del handler

    assert names == {f"{__name__}.handler{number}" for number in range(50)}


def test_there_are_no_more_endpoints_than_the_bound(endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """A router that writes the path itself into the scope must not fill the memory."""
    monkeypatch.setattr(work, "_MAX_ENDPOINTS", 10)
    found = [
        endpoints.of_asgi({"method": "GET", "route": SimpleNamespace(path=f"/user/{number}")}) for number in range(100)
    ]

    assert found[:10] == [labels(f"/user/{number}") for number in range(10)]
    assert set(found[10:]) == {(Label("endpoint", "<other endpoints>"),)}
    assert len(endpoints._labels) <= 11


def test_methods_that_clients_make_up_do_not_exceed_the_bound(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers hand on any method, and a router says whom it chose before it refuses one."""
    monkeypatch.setattr(work, "_MAX_ENDPOINTS", 10)
    for number in range(100):
        assert endpoints.of_asgi({"method": f"M{number}", "route": SimpleNamespace(path="/")}) is not None

    assert len(endpoints._labels) <= 20


def test_beyond_the_bound_labels_are_the_same_objects_too(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_MAX_ENDPOINTS", 10)
    scopes = [{"method": "GET", "route": SimpleNamespace(path=f"/user/{number}")} for number in range(30)]

    found = [endpoints.of_asgi(scope) for scope in [*scopes, *scopes]]

    assert len({id(one) for one in found}) <= 11


def test_no_more_templates_are_kept_than_the_bound(endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints made for each request are not kept alive for ever."""
    monkeypatch.setattr(work, "_MAX_ENDPOINTS", 10)
    for _ in range(100):
        endpoints.of_asgi({"method": "GET", "endpoint": lambda request: None})

    assert len(endpoints._templates) <= 10


# -- what an engine asks later ----------------------------------------------------------------------------------------


def test_what_a_framework_forgets_with_the_answer_is_known_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples are looked at up to two seconds later: Flask takes its request out of the environ before."""
    works: list[Work] = []

    def make(resolve: Resolve, subject: Any) -> Work:
        works.append(Work(resolve, subject))
        return works[-1]

    app = flask.Flask("shop")
    app.add_url_rule("/items/<int:number>", view_func=lambda number: "seen", endpoint="items")
    app.add_url_rule("/stream", view_func=lambda: iter(("a", "b")), endpoint="stream")
    middleware = WSGIProfilingMiddleware(app.wsgi_app, settings=settings)
    middleware._look_for = ""
    middleware._service.label_maker = make
    app.wsgi_app = middleware  # type: ignore[method-assign]

    for path in ("/items/4711", "/stream", "/nowhere"):
        app.test_client().get(path, buffered=True).close()

    assert [work.labels for work in works] == [labels("/items/<int:number>"), labels("/stream"), ()]


# -- Flask's rules ----------------------------------------------------------------------------------------------------


def test_a_flask_request_is_labelled_with_its_rule(labelled_wsgi: Callable[[Any], Any]) -> None:
    app, seen = flask.Flask("shop"), []

    @app.get("/items/<int:number>")
    def item(number: int) -> str:
        seen.append(labels_now())
        return "seen"

    @app.errorhandler(404)
    def not_found(error: Exception) -> tuple[str, int]:
        seen.append(labels_now())
        return "nowhere", 404

    app.wsgi_app = labelled_wsgi(app.wsgi_app)  # type: ignore[method-assign]
    client = app.test_client()
    for path in ("/items/4711", "/items/4712", "/etc/passwd"):
        client.get(path, buffered=True).close()

    assert seen == [labels("/items/<int:number>"), labels("/items/<int:number>"), None]
    assert seen[0] is seen[1]
    assert labels_now() == "nobody's"


def test_another_wsgi_framework_has_no_labels(endpoints: Endpoints) -> None:
    assert endpoints.of_wsgi({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}) is None


# -- how long: ASGI ---------------------------------------------------------------------------------------------------


async def never_receive() -> Any:
    await asyncio.Event().wait()


async def no_send(message: Any) -> None:
    """Nobody reads it."""


SCOPE = {"type": "http", "method": "GET", "path": "/", "route": SimpleNamespace(path="/"), "headers": []}


def test_a_request_is_labelled_once_and_no_longer_than_it_is_served(labelled_asgi: Callable[[Any], Any]) -> None:
    made: list[Work] = []
    during: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        during.append(CURRENT.get(None))
        await asyncio.sleep(0)
        during.append(CURRENT.get(None))

    def make(resolve: Resolve, subject: Any) -> Work:
        made.append(Work(resolve, subject))
        return made[-1]

    middleware = labelled_asgi(app)
    middleware._service.label_maker = make

    async def serve() -> object:
        await middleware(SCOPE, never_receive, no_send)
        return CURRENT.get(None)

    assert asyncio.run(serve()) is None
    assert len(made) == 1
    assert during == [made[0], made[0]]


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, SystemExit])
def test_a_request_that_raises_is_labelled_no_longer(
    labelled_asgi: Callable[[Any], Any], error: type[BaseException]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error("of the application")

    middleware = labelled_asgi(app)

    def serve() -> object:
        coroutine = middleware(SCOPE, never_receive, no_send)
        with pytest.raises(error, match="of the application"):
            coroutine.send(None)
        return CURRENT.get(None)

    assert contextvars.Context().run(serve) is None


def test_a_request_inside_a_request_gives_the_outer_one_its_labels_back(labelled_asgi: Callable[[Any], Any]) -> None:
    seen: list[object] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(labels_now())

    inside = labelled_asgi(inner)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await inside({**scope, "route": SimpleNamespace(path="/inner")}, receive, send)
        seen.append(labels_now())

    asyncio.run(labelled_asgi(outer)(SCOPE, never_receive, no_send))

    assert seen == [labels("/inner"), labels("/")]


def test_a_streamed_answer_is_labelled_to_its_end(labelled_asgi: Callable[[Any], Any]) -> None:
    seen: list[object] = []

    async def endpoint(request: Request) -> Response:
        async def body() -> Any:
            for _ in range(3):
                seen.append(labels_now())
                yield b"part"

        return StreamingResponse(body())

    app = labelled_asgi(Starlette(routes=[Route("/stream", endpoint)]))
    assert ask(app, "/stream") == b"partpartpart"

    assert seen == 3 * [labels("/stream")]


def test_without_a_label_maker_nothing_is_set(labelled_asgi: Callable[[Any], Any], seen: Seen) -> None:
    middleware = labelled_asgi(routed(seen))
    middleware._service.label_maker = None
    ask(middleware, "/items/1")

    assert seen.labels == ["nobody's"]


# -- what it leaves behind --------------------------------------------------------------------------------------------


class Kept(dict[str, Any]):
    """A scope or an environ of which can be told whether anybody holds it."""


def traced(middleware: Any) -> RequestSpans:
    """Requests are traced as well from now on."""
    spans = middleware._service.spans = RequestSpans()
    spans.start(TraceBuffer())
    return spans


def test_a_context_that_outlives_its_request_holds_no_more_than_its_labels(
    labelled_asgi: Callable[[Any], Any],
) -> None:
    """A timer that a request has started may be there for hours, and its scope has the body in it."""
    contexts: list[contextvars.Context] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = SimpleNamespace(path="/late")
        contexts.append(contextvars.copy_context())

    middleware = labelled_asgi(app)
    spans = traced(middleware)
    scope = Kept(SCOPE)
    gone = weakref.ref(scope)
    asyncio.run(middleware(scope, never_receive, no_send))
    del scope
    gc.collect()

    assert gone() is None
    assert [contexts[0].run(labels_now), contexts[0].run(WORKS_FOR.get)] == [labels("/late"), 1]
    assert spans.in_flight() == []


@pytest.mark.parametrize("resolve", [lambda scope: None, lambda scope: 1 / 0], ids=["no route", "fails"])
def test_what_was_not_known_at_the_end_of_a_request_never_will_be(resolve: Any) -> None:
    served = Served(resolve, {})
    served.end()
    served.end()
    assert served.labels() == ()


def test_what_is_sent_after_a_request_has_ended_reaches_the_server(labelled_asgi: Callable[[Any], Any]) -> None:
    """Of a task that goes on: whether that is in order is the server's to say, as without the middleware."""
    sent: list[Any] = []
    senders: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        senders.append(send)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def serve() -> None:
        await middleware(dict(SCOPE), never_receive, send)
        await senders[0]({"type": "http.response.body"})

    middleware = labelled_asgi(app)
    traced(middleware)
    asyncio.run(serve())
    assert sent == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("streams", [True, False])
def test_a_context_that_outlives_its_wsgi_request_holds_no_more_than_its_labels(
    streams: bool, labelled_wsgi: Callable[[Any], Any]
) -> None:
    contexts: list[contextvars.Context] = []

    def app(environ: Any, start_response: Any) -> Any:
        contexts.append(contextvars.copy_context())
        return iter([b"part"]) if streams else [b"all"]

    middleware = labelled_wsgi(app)
    traced(middleware)

    def serve() -> weakref.ref[Kept]:
        request = Kept(environ())
        answer = middleware(request, start_response)
        if streams:
            assert contexts[0].run(labels_now) == labels("/rule")
            list(answer)
            answer.close()
        return weakref.ref(request)

    gone: Any = run_alone(serve)
    gc.collect()

    assert gone() is None
    assert contexts[0].run(labels_now) == labels("/rule")


# -- how long: WSGI ---------------------------------------------------------------------------------------------------


class Body:
    """A body that is made bit by bit."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(2):
            self.seen.append(labels_now())
            yield b"part"

    def close(self) -> None:
        self.closed += 1
        self.seen.append(labels_now())


def environ(**changes: Any) -> dict[str, Any]:
    request = SimpleNamespace(url_rule="/rule")
    return {"PATH_INFO": "/", "REQUEST_METHOD": "GET", "werkzeug.request": request, **changes}


def start_response(status: str, headers: object) -> None:
    """Nobody reads it."""


def run_alone(function: Callable[[], object]) -> object:
    """In a context of its own, as each of a server's threads has one."""
    return contextvars.Context().run(function)


def test_what_a_traced_application_starts_its_answer_with_is_handed_on() -> None:
    """PEP 3333 names the third argument, and applications do."""
    calls: list[tuple[Any, Any]] = []

    def start(*arguments: Any, **named: Any) -> Any:
        calls.append((arguments, named))
        return calls.append

    def serve() -> None:
        spans = RequestSpans()
        request = WSGIWork(Served(lambda subject: None, environ()), spans, Failures())
        request.trace(spans)
        noting: Any = request.noted(start)
        assert noting("200 OK", [], None) == calls.append
        noting("500 Oops", [], exc_info="error")
        noting(status="404 Not Found", headers=[])
        request.end()

    run_alone(serve)
    assert calls == [
        (("200 OK", [], None), {}),
        (("500 Oops", []), {"exc_info": "error"}),
        ((), {"status": "404 Not Found", "headers": []}),
    ]


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_body_that_is_there_is_handed_on_as_it_is(
    labelled_wsgi: Callable[[Any], Any], kind: Callable[[list[bytes]], Any]
) -> None:
    body = kind([b"all of it"])

    def serve() -> None:
        assert labelled_wsgi(lambda environ, start_response: body)(environ(), start_response) is body
        assert labels_now() == "nobody's"

    run_alone(serve)


def test_a_file_that_the_server_can_send_by_itself_is_handed_on_as_it_is(labelled_wsgi: Callable[[Any], Any]) -> None:
    class Wrapper(Body):
        """The server's own, which it knows by its type."""

    body = Wrapper()

    def serve() -> None:
        answer = labelled_wsgi(lambda environ, start_response: body)
        assert answer(environ(**{"wsgi.file_wrapper": Wrapper}), start_response) is body
        assert labels_now() == "nobody's"

    run_alone(serve)


class Measured(Body):
    def __len__(self) -> int:
        return 1


class File(Body):
    def fileno(self) -> int:
        return 1


@pytest.mark.parametrize("body", [Measured(), File()])
def test_a_body_that_the_server_asks_something_is_handed_on_as_it_is(
    body: Body, labelled_wsgi: Callable[[Any], Any]
) -> None:
    """How long it is, or which file it is of: not every `file_wrapper` is a type."""

    def serve() -> None:
        answer = labelled_wsgi(lambda environ, start_response: body)
        assert answer(environ(**{"wsgi.file_wrapper": lambda file: file}), start_response) is body

    run_alone(serve)


def test_a_middleware_around_it_may_take_the_first_part(labelled_wsgi: Callable[[Any], Any]) -> None:
    def serve() -> None:
        answer = labelled_wsgi(lambda environ, start_response: iter([b"a", b"b"]))(environ(), start_response)
        assert next(answer) == b"a"
        assert list(answer) == [b"b"]

    run_alone(serve)


def test_a_streamed_body_is_labelled_until_it_is_closed(labelled_wsgi: Callable[[Any], Any]) -> None:
    body = Body()

    def serve() -> None:
        answer = labelled_wsgi(lambda environ, start_response: body)(environ(), start_response)
        assert b"".join(answer) == b"partpart"
        assert labels_now() == labels("/rule")
        answer.close()
        assert labels_now() == "nobody's"

    run_alone(serve)
    assert body.seen == 3 * [labels("/rule")]
    assert body.closed == 1


def test_a_generator_is_a_streamed_body(labelled_wsgi: Callable[[Any], Any]) -> None:
    seen: list[object] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        seen.append(labels_now())
        yield b"part"

    def serve() -> None:
        answer = labelled_wsgi(app)(environ(), start_response)
        assert b"".join(answer) == b"part"
        answer.close()
        assert labels_now() == "nobody's"

    run_alone(serve)
    assert seen == [labels("/rule")]


@pytest.mark.parametrize("error", [ValueError, GeneratorExit, SystemExit])
def test_a_wsgi_request_that_raises_is_labelled_no_longer(
    labelled_wsgi: Callable[[Any], Any], error: type[BaseException]
) -> None:
    def app(environ: Any, start_response: Any) -> None:
        raise error("of the application")

    def serve() -> None:
        with pytest.raises(error, match="of the application"):
            labelled_wsgi(app)(environ(), start_response)
        assert labels_now() == "nobody's"

    run_alone(serve)


def test_a_body_whose_close_raises_is_labelled_no_longer(labelled_wsgi: Callable[[Any], Any]) -> None:
    class Unclosable(Body):
        def close(self) -> None:
            raise ValueError("of the application")

    def serve() -> None:
        answer = labelled_wsgi(lambda environ, start_response: Unclosable())(environ(), start_response)
        with pytest.raises(ValueError, match="of the application"):
            answer.close()
        assert labels_now() == "nobody's"

    run_alone(serve)


def test_a_body_that_is_closed_from_another_context_disturbs_nobody(labelled_wsgi: Callable[[Any], Any]) -> None:
    body = Body()
    answer: Any = run_alone(lambda: labelled_wsgi(lambda environ, start_response: body)(environ(), start_response))

    def close_elsewhere() -> None:
        token = CURRENT.set("somebody else's")
        answer.close()
        assert CURRENT.get() == "somebody else's"
        end_work(token)

    run_alone(close_elsewhere)
    assert body.closed == 1


def test_the_next_request_of_a_thread_has_its_own_labels_if_the_last_body_was_never_closed(
    labelled_wsgi: Callable[[Any], Any],
) -> None:
    seen: list[object] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(labels_now())
        return []

    def serve() -> None:
        labelled_wsgi(lambda environ, start_response: Body())(environ(), start_response)
        other = SimpleNamespace(url_rule="/other")
        labelled_wsgi(app)(environ(**{"werkzeug.request": other}), start_response)

    run_alone(serve)
    assert seen == [labels("/other")]


def test_work_that_has_ended_already_is_not_an_error() -> None:
    def end_elsewhere() -> None:
        end_work(token)

    token = CURRENT.set("mine")
    run_alone(end_elsewhere)
    assert CURRENT.get() == "mine"
    end_work(token)
