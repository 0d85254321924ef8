"""POST /debug/pprof/enable and /disable: who may, what is answered, and that requests follow."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from profiling_middleware.config import Settings
from profiling_middleware.labels import CURRENT, Resolve
from profiling_middleware.middleware.admin import Admin
from profiling_middleware.middleware.asgi import ProfilingMiddleware
from profiling_middleware.middleware.messages import AdminRequest, AdminResponse, Awaited
from profiling_middleware.middleware.paths import PREFIX
from profiling_middleware.middleware.wsgi import WSGIProfilingMiddleware
from profiling_middleware.profiler import Profiler

pytestmark = pytest.mark.usefixtures("service_has_ended")

MakeRequest = Callable[..., AdminRequest]
TOKEN = "correct-horse-battery"
KNOWN = ("authorization", f"Bearer {TOKEN}")
ENABLE, DISABLE = "/debug/pprof/enable", "/debug/pprof/disable"


@pytest.fixture
def settings(tmp_path: Path, logger: logging.Logger) -> Settings:
    return Settings(
        environment="dev", service_name="watcher", store=(tmp_path / "store").as_uri(), token=TOKEN, types=("cpu",)
    )


@pytest.fixture
def profiler(settings: Settings) -> Iterator[Profiler]:
    profiler = Profiler(settings)
    yield profiler
    profiler.stop()


@pytest.fixture
def admin(settings: Settings, profiler: Profiler) -> Admin:
    return Admin(settings, lambda: profiler)


def response(answer: AdminResponse | Awaited, deadline: float = 10) -> AdminResponse:
    if isinstance(answer, AdminResponse):
        return answer
    answer.result.exception(deadline)
    return answer.response()


def never() -> Profiler:
    raise AssertionError("one who may not caused work")


# -- the routes -------------------------------------------------------------------------------------------------------


def test_a_post_switches_and_is_answered_with_the_new_state(
    admin: Admin, profiler: Profiler, make_request: MakeRequest
) -> None:
    on = response(admin.answer(make_request(KNOWN, method="POST", path=ENABLE)))
    was_enabled = profiler.enabled
    off = response(admin.answer(make_request(KNOWN, method="POST", path=DISABLE)))

    assert (on.status, on.media_type, was_enabled) == (200, "application/json", True)
    state = json.loads(on.body)
    assert (state["enabled"], state["running_captures"]) == (True, 1)
    assert 0 < state["next_window_seconds"] <= 300
    assert (off.status, json.loads(off.body)["enabled"], profiler.enabled) == (200, False, False)
    assert json.loads(off.body)["next_window_seconds"] is None


def test_the_answer_says_that_only_one_process_was_switched(
    admin: Admin, profiler: Profiler, make_request: MakeRequest
) -> None:
    answer = response(admin.answer(make_request(KNOWN, method="POST", path=ENABLE)))

    assert json.loads(answer.body)["acted_on"] == (
        f"only the process that answers, {profiler.instance}: other workers stay as they are"
    )
    assert ("X-Profile-Instance", profiler.instance) in answer.headers


@pytest.mark.parametrize("path", [ENABLE, DISABLE])
def test_a_developer_without_a_token_may_not(make_request: MakeRequest, path: str) -> None:
    answer = response(Admin(Settings(environment="dev"), never).answer(make_request(method="POST", path=path)))

    assert answer.status == 403
    assert answer.body == (
        b"profiling: refused: this needs a token, also on this machine: set PROFILE_TOKEN and send it\n"
    )


@pytest.mark.parametrize("path", [ENABLE, DISABLE])
@pytest.mark.parametrize("header", [("authorization", "Bearer wrong-token"), ("x-nothing", "")])
def test_who_does_not_know_the_token_may_not(
    settings: Settings, make_request: MakeRequest, path: str, header: tuple[str, str]
) -> None:
    answer = response(Admin(settings, never).answer(make_request(header, method="POST", path=path)))

    assert answer.status == 401


@pytest.mark.parametrize("path", [ENABLE, DISABLE])
@pytest.mark.parametrize(
    "header",
    [
        ("origin", "https://evil.example"),
        ("origin", "http://localhost:8000"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-origin"),
    ],
)
def test_a_page_in_a_browser_that_knows_the_token_may_not(
    settings: Settings, make_request: MakeRequest, path: str, header: tuple[str, str]
) -> None:
    answer = response(Admin(settings, never).answer(make_request(KNOWN, header, method="POST", path=path)))

    assert (answer.status, b"the request comes from a page" in answer.body) == (403, True)


@pytest.mark.parametrize("path", [ENABLE, DISABLE])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post"])
def test_every_method_but_post_is_405(settings: Settings, make_request: MakeRequest, path: str, method: str) -> None:
    answer = response(Admin(settings, never).answer(make_request(KNOWN, method=method, path=path)))

    assert (answer.status, answer.body) == (405, f"profiling: {method} is not allowed: use POST\n".encode())
    assert ("Allow", "POST") in answer.headers


def test_where_another_profiler_runs_it_is_409(admin: Admin, make_request: MakeRequest) -> None:
    with Profiler(Settings(environment="dev", sample_rate=50)):
        answer = response(admin.answer(make_request(KNOWN, method="POST", path=ENABLE)))

    assert (answer.status, b"another Profiler runs" in answer.body) == (409, True)


def test_the_token_is_in_no_answer(admin: Admin, make_request: MakeRequest) -> None:
    for method, path, query in (
        ("POST", ENABLE, ""),
        ("GET", "/debug/pprof/", ""),
        ("GET", "/debug/pprof/", "format=json"),
        ("GET", "/debug/pprof/metrics", ""),
        ("POST", DISABLE, ""),
    ):
        answer = response(admin.answer(make_request(KNOWN, method=method, path=path, query=query)))
        assert answer.status == 200
        assert isinstance(answer.body, bytes)
        assert TOKEN.encode() not in answer.body


# -- requests are labelled while it is on ------------------------------------------------------------------------------


class Work:
    """What an engine that reads labels makes of a request."""

    def __init__(self, resolve: Resolve, subject: Any) -> None:
        self.subject = subject


class Service:
    """An application behind a middleware, which notes whom it works for in each request."""

    def __init__(self, settings: Settings, protocol: str) -> None:
        self.seen: list[bool] = []
        self._protocol = protocol
        app: Any = self._asgi if protocol == "asgi" else self._wsgi
        kind: Any = ProfilingMiddleware if protocol == "asgi" else WSGIProfilingMiddleware
        self.middleware = kind(app, settings=settings)

    def is_labelled(self) -> bool:
        """Whether the next request is."""
        self.ask("/orders", "GET")
        return self.seen[-1]

    def ask(self, path: str, method: str) -> bytes:
        return asyncio.run(self._ask_asgi(path, method)) if self._protocol == "asgi" else self._ask_wsgi(path, method)

    async def _asgi(self, scope: Any, receive: Any, send: Any) -> None:
        self._note()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def _wsgi(self, environ: Any, start_response: Any) -> list[bytes]:
        self._note()
        start_response("200 OK", [])
        return [b""]

    def _note(self) -> None:
        self.seen.append(isinstance(CURRENT.get(None), Work))

    async def _ask_asgi(self, path: str, method: str) -> bytes:
        sent: list[Any] = []

        async def receive() -> Any:
            return await asyncio.Future()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(KNOWN[0].encode(), KNOWN[1].encode())],
        }
        await self.middleware(scope, receive, send)
        return b"".join(message.get("body", b"") for message in sent)

    def _ask_wsgi(self, path: str, method: str) -> bytes:
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_AUTHORIZATION": KNOWN[1]}
        return b"".join(self.middleware(environ, lambda status, headers: None))


@pytest.fixture(params=["asgi", "wsgi"])
def service(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr("profiling_middleware.profiler.make_label_maker", lambda settings: Work)
    return Service(settings, request.param)


def test_requests_are_labelled_while_it_is_on(service: Service) -> None:
    assert not service.is_labelled()

    assert json.loads(service.ask(ENABLE, "POST"))["enabled"] is True
    assert service.is_labelled()

    assert json.loads(service.ask(DISABLE, "POST"))["enabled"] is False
    assert not service.is_labelled()


def test_once_it_is_off_a_request_pays_for_one_comparison_again(service: Service) -> None:
    service.ask(ENABLE, "POST")
    assert service.middleware._look_for == ""

    service.ask(DISABLE, "POST")
    assert service.middleware._look_for == PREFIX


def test_requests_follow_a_profiler_that_the_application_switches_itself(service: Service, settings: Settings) -> None:
    profiler = Profiler.shared(settings)
    profiler.enable()
    assert service.is_labelled()

    profiler.disable()
    assert not service.is_labelled()
    profiler.stop()


def test_requests_do_not_follow_a_profiler_with_other_settings(
    service: Service, settings: Settings, logger: logging.Logger
) -> None:
    with Profiler(Settings(enabled=True, types=("cpu",), store=settings.store, service_name="another")):
        assert not service.is_labelled()


def test_what_was_switched_off_is_not_begun_by_a_later_request(
    settings: Settings, started_profiler: Callable[[], Profiler | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiling_middleware.profiler.make_label_maker", lambda settings: Work)
    on = Settings(enabled=True, token=TOKEN, types=("cpu",), store=settings.store, service_name="watcher")
    service = Service(on, "wsgi")
    assert json.loads(service.ask(DISABLE, "POST"))["enabled"] is False
    service.ask("/orders", "GET")

    profiler = started_profiler()
    assert profiler is not None
    assert not profiler.enabled
    assert not service.is_labelled()
