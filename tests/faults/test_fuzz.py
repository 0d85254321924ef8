"""A slice of what `scripts/full --fuzz` sends, always the same; and that what is wrong is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from request_fuzz import drive_asgi
from request_fuzz.run import run
from request_fuzz.watch import FuzzFailure

from profiling_middleware.config import Settings
from profiling_middleware.middleware import access, admin, asgi, messages, wsgi

SEED = 20261128


def test_a_slice_of_all_that_may_come() -> None:
    counts = run(5_000, SEED)

    assert counts["asgi"] + counts["wsgi"] + counts["socket"] == 5_000
    # All ends of the road are reached; else it says nothing.
    ends = {"asgi": 2_000, "wsgi": 1_000, "socket": 100, "the application's": 1_500, "the routes'": 1_500}
    for what, at_least in ends.items():
        assert counts[what] >= at_least, what
    for status in (200, 308, 400, 401, 403, 404, 405):
        assert counts[f"status {status}"] >= 10, status
    assert counts["captures"] >= 20
    assert counts["settings refused"] >= 5


def test_the_same_seed_sends_the_same() -> None:
    ways = ("asgi", "wsgi", "socket", "the application's", "the routes'", "settings", "settings refused")
    one, other = run(300, 5), run(300, 5)

    assert [one[way] for way in ways] == [other[way] for way in ways]


def _let_all_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "refusal", lambda request, settings: None)


def _first_of_two_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    right = messages.AdminRequest.all
    monkeypatch.setattr(messages.AdminRequest, "all", lambda request, name: right(request, name)[:1])


def _upper_case_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (asgi, wsgi):
        monkeypatch.setattr(module, "is_admin_path", lambda path: path.startswith("/debug/pprof"))


def _raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("method")

    monkeypatch.setattr(admin.Admin, "answer", broken)


def _fails_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("seconds")

    monkeypatch.setattr(admin, "parse_capture_query", broken)


def _repeats_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "names_token", lambda request, settings: False)


def _says_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_ask_for_token", lambda: messages.error(401, "send the token"))
    right = admin.refusal

    def telling(request: Any, settings: Settings) -> Any:
        if settings.token:
            settings.logger.warning("expected %s", settings.token)
        return right(request, settings)

    monkeypatch.setattr(admin, "refusal", telling)


def _changes_the_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    right = asgi.ProfilingMiddleware.__call__

    async def marked(middleware: Any, scope: Any, receive: Any, send: Any) -> None:
        scope["profiled"] = True
        await right(middleware, scope, receive, send)

    monkeypatch.setattr(asgi.ProfilingMiddleware, "__call__", marked)


def _captures_for_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    right = admin.Admin.answer

    def eager(routes: Any, request: Any) -> Any:
        routes._profiler()
        return right(routes, request)

    monkeypatch.setattr(admin.Admin, "answer", eager)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_let_all_in, "not refused"),
        (_first_of_two_headers, "not refused"),
        (_upper_case_too, "not as without the middleware"),
        (_raises, "raised"),
        (_fails_inside, "failed inside"),
        (_repeats_the_token, "the token is shown"),
        (_says_the_token, "the token is shown"),
        (_changes_the_scope, "not as without the middleware"),
        (_captures_for_strangers, "not refused"),
    ],
)
def test_it_notices(fault: Callable[[pytest.MonkeyPatch], None], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)

    with pytest.raises(FuzzFailure, match=said) as failure:
        run(3_000, SEED)
    assert f"seed {SEED}, after " in str(failure.value)


def test_a_hang_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive_asgi, "_SECONDS", 0.05)

    async def hangs(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asgi.ProfilingMiddleware, "_answer", hangs)
    with pytest.raises(FuzzFailure, match="hangs"):
        run(1_000, SEED)
