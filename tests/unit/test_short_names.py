"""A name that the service gives is as long as it likes; what is kept of it is not."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from profiling_middleware.middleware.work import Endpoints
from profiling_middleware.model import Thread
from profiling_middleware.short_names import short_name
from profiling_middleware.tracing.names import coroutine_name, function_name
from profiling_middleware.tracing.tracer import _threads

LONG = "x" * 20_000
SHORT = "x" * 199 + "…"


@pytest.mark.parametrize(("name", "expected"), [("", ""), ("x" * 200, "x" * 200), ("x" * 201, SHORT), (LONG, SHORT)])
def test_a_long_name_is_cut_and_says_so(name: str, expected: str) -> None:
    assert short_name(name) == expected


def named(name: str) -> Any:
    def function() -> None: ...

    function.__qualname__ = name
    return function


def test_names_are_cut_where_they_come_from(deadline: float) -> None:
    assert Thread(LONG, 1).name == SHORT
    assert coroutine_name(named(LONG)) == function_name(named(LONG)) == SHORT
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait, args=(deadline,), name=LONG)
    thread.start()
    try:
        assert (thread.native_id, SHORT) in _threads()
    finally:
        go_on.set()
        thread.join(deadline)


def test_endpoints_are_cut() -> None:
    endpoints = Endpoints()
    route = SimpleNamespace(path=LONG)
    request = SimpleNamespace(url_rule=LONG)
    of_asgi = [endpoints.of_asgi({"method": "GET", "route": route}) for _ in range(2)]
    assert of_asgi[0] is of_asgi[1] is endpoints.of_wsgi({"REQUEST_METHOD": "GET", "werkzeug.request": request})
    assert of_asgi[0] is not None
    assert of_asgi[0][0].value == SHORT
