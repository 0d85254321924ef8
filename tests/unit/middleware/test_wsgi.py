"""WSGI: translation of the protocol."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from profiling_middleware.config import Settings, SettingsError
from profiling_middleware.middleware.wsgi import WSGIProfilingMiddleware
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.profiler import Profiler

pytestmark = pytest.mark.usefixtures("service_has_ended")

Environ = dict[str, Any]
Started = Callable[[], Profiler | None]


class Application:
    """Notes what reaches it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.body: Iterable[bytes] = [b"of the application"]

    def __call__(self, environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
        self.seen.append(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self.body


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def settings(tmp_path: Path, logger: logging.Logger) -> Settings:
    return Settings(environment="dev", service_name="watcher", store=(tmp_path / "store").as_uri())


@pytest.fixture
def on(settings: Settings) -> Settings:
    return Settings(enabled=True, types=("cpu",), service_name="watcher", store=settings.store)


def ask(app: Callable[..., Iterable[bytes]], path: str, **changes: Any) -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and body."""
    environ: Environ = {}
    setup_testing_defaults(environ)
    environ |= {
        "PATH_INFO": path,
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost:8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.multithread": True,
        **changes,
    }
    started: list[tuple[str, list[tuple[str, str]]]] = []
    body = b"".join(app(environ, lambda status, headers, error=None: started.append((status, headers))))
    ((status, headers),) = started
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in headers)
    return status, dict(headers), body


@pytest.mark.parametrize(
    "path", ["/", "/orders", "/debug", "/debug/pprofile", "/x/debug/pprof/", "", "/debug/pprof2/cpu"]
)
def test_every_other_path_is_the_applications(application: Application, settings: Settings, path: str) -> None:
    status, _, body = ask(WSGIProfilingMiddleware(application, settings=settings), path)

    assert (status, body, application.seen) == ("200 OK", b"of the application", [path])


def test_the_applications_own_iterable_is_handed_on_untouched(application: Application, settings: Settings) -> None:
    application.body = iter([b"a", b"b"])
    environ: Environ = {}
    setup_testing_defaults(environ)

    result = WSGIProfilingMiddleware(application, settings=settings)(environ, lambda *_: lambda _: None)

    assert result is application.body


def test_what_the_application_raises_is_raised(settings: Settings) -> None:
    def broken(environ: Environ, start_response: object) -> Iterable[bytes]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(WSGIProfilingMiddleware(broken, settings=settings), "/")


def test_a_capture_is_answered(application: Application, settings: Settings) -> None:
    status, headers, body = ask(
        WSGIProfilingMiddleware(application, settings=settings), "/debug/pprof/cpu", QUERY_STRING="seconds=0.05"
    )

    assert (status, headers["Content-Type"]) == ("200 OK", "application/octet-stream")
    assert headers["Content-Length"] == str(len(body))
    assert b"(cpu, on demand, " in gzip.decompress(body)
    assert application.seen == []


def test_a_head_request_has_no_body(application: Application, settings: Settings) -> None:
    """Not every server leaves it out, and then it is read as the next answer."""
    app = WSGIProfilingMiddleware(application, settings=settings)

    status, _, body = ask(app, "/debug/pprof/", REQUEST_METHOD="HEAD")

    assert (status, body) == ("405 Method Not Allowed", b"")


def test_a_server_with_one_thread_answers_at_once_with_the_key(application: Application, settings: Settings) -> None:
    status, headers, body = ask(
        WSGIProfilingMiddleware(application, settings=settings),
        "/debug/pprof/cpu",
        QUERY_STRING="seconds=60",
        **{"wsgi.multithread": False},
    )

    assert (status, body.decode()) == ("202 Accepted", headers["X-Profile-Key"] + "\n")


def test_a_server_that_does_not_say_counts_as_one_with_one_thread(application: Application, settings: Settings) -> None:
    status, *_ = ask(
        WSGIProfilingMiddleware(application, settings=settings),
        "/debug/pprof/cpu",
        QUERY_STRING="seconds=60",
        **{"wsgi.multithread": None},
    )

    assert status == "202 Accepted"


@pytest.mark.parametrize(
    "changes",
    [
        {"REMOTE_ADDR": "10.0.0.1"},
        {"REMOTE_ADDR": ""},
        {"HTTP_HOST": "evil.com"},
        {"HTTP_ORIGIN": "https://evil.com"},
        {"HTTP_SEC_FETCH_SITE": "cross-site"},
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
        {"HTTP_X_REAL_IP": "127.0.0.1"},
        {"HTTP_FORWARDED": "for=127.0.0.1"},
        {"HTTP_VIA": "1.1 proxy"},
        {"SERVER_PROTOCOL": "HTTP/1.0"},
    ],
)
def test_whoever_may_not_is_refused(application: Application, settings: Settings, changes: Environ) -> None:
    status, *_ = ask(WSGIProfilingMiddleware(application, settings=settings), "/debug/pprof/", **changes)

    assert status == "403 Forbidden"


def test_a_request_without_a_peer_is_remote(application: Application, settings: Settings) -> None:
    environ: Environ = {}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    environ |= {"PATH_INFO": "/debug/pprof/", "HTTP_HOST": "localhost", "SERVER_PROTOCOL": "HTTP/1.1"}
    environ.pop("REMOTE_ADDR", None)

    list(
        WSGIProfilingMiddleware(application, settings=settings)(
            environ, lambda status, headers: statuses.append(status)
        )
    )

    assert statuses == ["403 Forbidden"]


def test_the_token_is_taken_from_the_authorization_header(application: Application, settings: Settings) -> None:
    app = WSGIProfilingMiddleware(application, settings=Settings(token="correct-horse"))
    basic = "Basic " + base64.b64encode(b"pprof:correct-horse").decode()

    for header, expected in (("Bearer correct-horse", "200 OK"), (basic, "200 OK"), ("Bearer x", "401 Unauthorized")):
        status, *_ = ask(app, "/debug/pprof/cmdline", HTTP_AUTHORIZATION=header, REMOTE_ADDR="10.0.0.1")
        assert status == expected


def test_links_keep_what_stands_before_the_path(application: Application, settings: Settings) -> None:
    status, headers, _ = ask(
        WSGIProfilingMiddleware(application, settings=settings), "/debug/pprof", SCRIPT_NAME="/shop"
    )

    assert (status, headers["Location"]) == ("308 Permanent Redirect", "/shop/debug/pprof/")


def test_a_capture_whose_client_has_left_is_cancelled(application: Application, settings: Settings) -> None:
    server, client = socket.socketpair()
    threading.Timer(0.05, client.close).start()
    with server:
        status, _, body = ask(
            WSGIProfilingMiddleware(application, settings=settings),
            "/debug/pprof/cpu",
            QUERY_STRING="seconds=60",
            **{"gunicorn.socket": server},
        )

    assert (status, body) == ("499 Client Closed Request", b"")


def test_a_profiler_that_is_on_starts_after_the_first_request(
    application: Application, on: Settings, started_profiler: Started
) -> None:
    app = WSGIProfilingMiddleware(application, settings=on)
    assert started_profiler() is None

    ask(app, "/orders")

    profiler = started_profiler()
    assert profiler is not None
    assert profiler.settings == on
    assert application.seen == ["/orders"]


def test_no_request_waits_for_the_profiler_to_be_loaded(application: Application, on: Settings) -> None:
    app = WSGIProfilingMiddleware(application, settings=on)

    ask(app, "/orders")

    assert THIS_PROCESS.resident is None
    app._service.stop()


def test_the_profiler_is_started_once_however_many_requests_come(
    application: Application, on: Settings, started_profiler: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[Profiler] = []
    monkeypatch.setattr(Profiler, "start", lambda profiler: starts.append(profiler))
    app = WSGIProfilingMiddleware(application, settings=on)

    for _ in range(5):
        ask(app, "/orders")
        started_profiler()

    assert len(starts) == 1


def test_a_profiler_that_is_off_is_not_even_made(application: Application, settings: Settings) -> None:
    ask(WSGIProfilingMiddleware(application, settings=settings), "/orders")

    assert THIS_PROCESS.resident is None


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

    status, _, body = ask(WSGIProfilingMiddleware(application, settings=on), "/orders")
    started_profiler()

    assert (status, body) == ("200 OK", b"of the application")
    assert "profiling: stays off: it cannot be started; the service is not affected" in caplog.messages


def test_two_middlewares_with_the_same_settings_share_a_profiler(
    application: Application, on: Settings, started_profiler: Started
) -> None:
    one, other = (WSGIProfilingMiddleware(application, settings=dataclasses.replace(on)) for _ in range(2))

    ask(one, "/orders")
    first = started_profiler()
    ask(other, "/orders")

    assert first is not None
    assert started_profiler() is first


def test_two_middlewares_with_different_settings_are_refused(application: Application, on: Settings) -> None:
    first = WSGIProfilingMiddleware(application, settings=on)

    with pytest.raises(RuntimeError, match="give every middleware the same ones"):
        WSGIProfilingMiddleware(application, settings=dataclasses.replace(on, sample_rate=50))
    assert first.app is application


def test_settings_that_cannot_be_used_are_refused(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROFILE_INTERVAL", "soon")

    with pytest.raises(SettingsError, match="PROFILE_INTERVAL"):
        WSGIProfilingMiddleware(application)
