"""ASGI: translation of the protocol."""

from __future__ import annotations

import asyncio
import gzip
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from profiling_middleware.config import Settings
from profiling_middleware.middleware.asgi import ProfilingMiddleware
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.profiler import Profiler

pytestmark = pytest.mark.usefixtures("service_has_ended")

Message = dict[str, Any]
Started = Callable[[], Profiler | None]
Scope = dict[str, Any]


class Application:
    """Notes what reaches it, and the very objects it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[Scope, object, object]] = []

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        self.given.append((scope, receive, send))
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"of the application"})


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def settings(tmp_path: Path, logger: logging.Logger) -> Settings:
    return Settings(environment="dev", service_name="watcher", store=(tmp_path / "store").as_uri())


@pytest.fixture
def on(settings: Settings) -> Settings:
    return Settings(enabled=True, types=("cpu",), service_name="watcher", store=settings.store)


def http(path: str, query: str = "", **changes: Any) -> Scope:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost:8000")],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
        "http_version": "1.1",
        **changes,
    }


async def call(app: Callable[..., Awaitable[None]], scope: Scope, *incoming: Message) -> list[Message]:
    """What is sent in answer; after `incoming` nothing more comes in."""
    waiting, sent = list(incoming), []

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        return await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def ask(app: Callable[..., Awaitable[None]], scope: Scope, *incoming: Message) -> list[Message]:
    return asyncio.run(call(app, scope, *incoming))


LIFESPAN = ({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})


@pytest.mark.parametrize("path", ["/", "/orders", "/debug", "/debug/pprofile", "/x/debug/pprof/", ""])
def test_every_other_path_is_the_applications(application: Application, settings: Settings, path: str) -> None:
    sent = ask(ProfilingMiddleware(application, settings=settings), http(path))

    assert sent[-1]["body"] == b"of the application"


@pytest.mark.parametrize("kind", ["http", "websocket", "lifespan", "something else"])
def test_a_profiler_that_is_off_hands_on_the_very_objects(
    application: Application, settings: Settings, kind: str
) -> None:
    async def receive() -> Message:
        return LIFESPAN[len(application.given) - 1] if kind != "lifespan" else next(messages)

    async def send(message: Message) -> None:
        """Takes it."""

    messages = iter(LIFESPAN)
    scope = http("/orders", type=kind)

    asyncio.run(ProfilingMiddleware(application, settings=settings)(scope, receive, send))

    ((given_scope, given_receive, given_send),) = application.given
    assert given_scope is scope
    assert given_receive is receive
    assert given_send is send


def test_a_websocket_at_the_routes_is_the_applications(application: Application, settings: Settings) -> None:
    ask(ProfilingMiddleware(application, settings=settings), http("/debug/pprof/cpu", type="websocket"))

    assert len(application.given) == 1


def test_what_the_application_raises_is_raised(settings: Settings) -> None:
    async def broken(scope: Scope, receive: object, send: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(ProfilingMiddleware(broken, settings=settings), http("/"))


def test_a_capture_is_answered(application: Application, settings: Settings) -> None:
    start, body = ask(ProfilingMiddleware(application, settings=settings), http("/debug/pprof/cpu", "seconds=0.05"))

    headers = dict(start["headers"])
    assert (start["status"], headers[b"Content-Type"]) == (200, b"application/octet-stream")
    assert headers[b"Content-Length"] == str(len(body["body"])).encode()
    assert b"(cpu, on demand, " in gzip.decompress(body["body"])
    assert application.given == []


def test_the_loop_goes_on_while_a_capture_is_taken(application: Application, settings: Settings) -> None:
    async def both() -> tuple[int, list[Message]]:
        steps = 0
        capture = asyncio.ensure_future(
            call(ProfilingMiddleware(application, settings=settings), http("/debug/pprof/cpu", "seconds=0.1"))
        )
        while not capture.done():
            await asyncio.wait({capture}, timeout=0.001)
            steps += 1
        return steps, capture.result()

    steps, sent = asyncio.run(both())

    assert steps > 20
    assert sent[0]["status"] == 200


def test_a_client_that_leaves_ends_the_capture_and_gets_no_answer(
    application: Application, settings: Settings, deadline: float
) -> None:
    app = ProfilingMiddleware(application, settings=settings)

    sent = asyncio.run(
        asyncio.wait_for(
            call(app, http("/debug/pprof/cpu", "seconds=60"), {"type": "http.request"}, {"type": "http.disconnect"}),
            deadline,
        )
    )

    assert sent == []


def test_a_request_that_is_cancelled_ends_its_capture(
    application: Application, settings: Settings, deadline: float
) -> None:
    """As by a time-out of the server; eight of them must not block the routes for good."""
    app = ProfilingMiddleware(application, settings=settings)

    async def nine_times() -> list[Message]:
        for _ in range(9):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(call(app, http("/debug/pprof/cpu", "seconds=60")), 0.02)
        return await asyncio.wait_for(call(app, http("/debug/pprof/cpu", "seconds=0.02")), deadline)

    assert asyncio.run(nine_times())[0]["status"] == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"client": ("10.0.0.1", 50_000)},
        {"client": None},
        {"headers": [(b"host", b"evil.com")]},
        {"headers": []},
        {"headers": [(b"Host", b"localhost"), (b"X-Forwarded-For", b"127.0.0.1")]},
        {"headers": [(b"host", b"localhost"), (b"origin", b"https://evil.com")]},
        {"http_version": "1.0"},
    ],
)
def test_whoever_may_not_is_refused(application: Application, settings: Settings, changes: Scope) -> None:
    start, _ = ask(ProfilingMiddleware(application, settings=settings), http("/debug/pprof/", **changes))

    assert start["status"] == 403


@pytest.mark.parametrize("root", ["/shop", "/shop/v2"])
def test_what_a_server_or_a_mount_put_before_the_path_is_taken_off(
    application: Application, settings: Settings, root: str
) -> None:
    app = ProfilingMiddleware(application, settings=settings)

    index, _ = ask(app, http(f"{root}/debug/pprof/", root_path=root))
    redirect, _ = ask(app, http(f"{root}/debug/pprof", root_path=root))

    assert index["status"] == 200
    assert dict(redirect["headers"])[b"Location"] == f"{root}/debug/pprof/".encode()


def test_the_profiler_lives_as_long_as_the_lifespan(on: Settings, started_profiler: Started) -> None:
    seen: list[tuple[str, bool]] = []

    async def note(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(("before start-up", started_profiler() is not None))
        await receive()
        await send({"type": "lifespan.startup.complete"})
        seen.append(("after start-up", started_profiler() is not None))
        await receive()
        seen.append(("at shutdown", started_profiler() is not None))
        await send({"type": "lifespan.shutdown.complete"})
        seen.append(("after shutdown", started_profiler() is not None))

    sent = ask(ProfilingMiddleware(note, settings=on), {"type": "lifespan"}, *LIFESPAN)

    assert seen == [
        ("before start-up", False),
        ("after start-up", True),
        ("at shutdown", True),
        ("after shutdown", False),
    ]
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_second_lifespan_starts_the_profiler_again(
    application: Application, on: Settings, started_profiler: Started
) -> None:
    app = ProfilingMiddleware(application, settings=on)

    for _ in range(2):
        ask(app, {"type": "lifespan"}, *LIFESPAN)
        assert started_profiler() is None
    ask(app, http("/orders"))

    assert started_profiler() is not None


def test_a_service_that_ends_at_once_does_not_wait_for_the_profiler_to_be_loaded(
    application: Application, on: Settings
) -> None:
    since = time.monotonic()

    ask(ProfilingMiddleware(application, settings=on), {"type": "lifespan"}, *LIFESPAN)

    assert time.monotonic() - since < 0.9
    assert THIS_PROCESS.resident is None


def test_a_start_up_that_fails_starts_no_profiler(on: Settings, started_profiler: Started) -> None:
    async def fails(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    sent = ask(ProfilingMiddleware(fails, settings=on), {"type": "lifespan"}, LIFESPAN[0])

    assert sent == [{"type": "lifespan.startup.failed", "message": "no database"}]
    assert started_profiler() is None


def test_without_a_lifespan_the_profiler_starts_after_the_first_request(
    application: Application, on: Settings, started_profiler: Started
) -> None:
    app = ProfilingMiddleware(application, settings=on)
    assert started_profiler() is None

    sent = ask(app, http("/orders"))

    assert started_profiler() is not None
    assert sent[-1]["body"] == b"of the application"


def test_a_profiler_that_cannot_start_does_not_reach_the_application(
    application: Application,
    on: Settings,
    started_profiler: Started,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: Profiler) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Profiler, "start", broken)

    sent = ask(ProfilingMiddleware(application, settings=on), http("/orders"))
    started_profiler()

    assert sent[-1]["body"] == b"of the application"
    assert "profiling: stays off: it cannot be started; the service is not affected" in caplog.messages


def test_bad_settings_are_refused_at_the_lifespans_start_up(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROFILE_INTERVAL", "soon")

    (failed,) = ask(ProfilingMiddleware(application), {"type": "lifespan"}, LIFESPAN[0])

    assert failed["type"] == "lifespan.startup.failed"
    assert "PROFILE_INTERVAL (interval) = 'soon' is not a duration" in failed["message"]
    assert application.given == []


def test_without_a_lifespan_bad_settings_are_logged_once_and_the_application_is_served(
    application: Application,
    logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PROFILE_INTERVAL", "soon")
    app = ProfilingMiddleware(application)

    answers = [ask(app, http("/orders"))[-1]["body"] for _ in range(3)]

    assert answers == [b"of the application"] * 3
    (line,) = caplog.messages
    assert line.startswith("profiling: stays off: PROFILE_INTERVAL (interval) = 'soon' is not a duration")


def test_with_bad_settings_the_routes_let_nobody_in(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROFILE_ENVIRONMENT", "dev")
    monkeypatch.setenv("PROFILE_TOKEN", "short")
    app = ProfilingMiddleware(application)

    start, body = ask(app, http("/debug/pprof/cmdline"))

    assert start["status"] == 403
    assert b"short" not in body["body"]


def test_other_settings_than_those_of_the_process_are_refused_at_start_up(
    application: Application, on: Settings
) -> None:
    first = ProfilingMiddleware(application, settings=on)
    other = ProfilingMiddleware(application, settings=Settings(enabled=True, store=on.store, sample_rate=50))

    (failed,) = ask(other, {"type": "lifespan"}, LIFESPAN[0])

    assert failed["type"] == "lifespan.startup.failed"
    assert "give every middleware the same ones" in failed["message"]
    assert first.app is application
