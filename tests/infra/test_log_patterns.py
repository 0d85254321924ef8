"""The alarms count the lines that the service writes, and no others. moto reads the patterns as CloudWatch does."""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from infra_kit.artifacts import make_artifact
from infra_kit.terraform import INFRA
from integration_kit.moto import Moto
from integration_kit.waiting import eventually
from uvicorn.logging import DefaultFormatter

from profiling_middleware import Profiler, ProfilingMiddleware, Settings, WSGIProfilingMiddleware, uploads
from profiling_middleware.middleware import asgi, service, wsgi
from profiling_middleware.middleware.service import ProfilerService
from profiling_middleware.model import CaptureInfo
from profiling_middleware.stores import StoreError
from profiling_middleware.uploads import Uploads
from profiling_middleware.waiting import backlog
from profiling_middleware.waiting.backlog import Backlog
from profiling_middleware.waiting.memory import Memory
from profiling_middleware.waiting.spool import Spool

ALARMS = INFRA / "alarms" / "alarms.tf"
COVERED_BY_OTHERS = {"profiling: %s is not ready: %s"}
"""Without a client every put fails, and says so itself."""


class UnsteadyStore:
    """Takes one capture, and then no more."""

    place = "s3://stl-debugging-prod"

    def __init__(self) -> None:
        self._takes = 1

    def warm_up(self) -> None:
        raise StoreError("no S3 client: check the AWS_ variables of this process")

    def put(self, key: str, body: bytes, info: CaptureInfo) -> None:
        self._takes -= 1
        if self._takes < 0:
            raise StoreError("S3 answered 403 AccessDenied (An error occurred): allow s3:PutObject")


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger that writes as the service does in its container."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(DefaultFormatter("%(levelprefix)s %(message)s", use_colors=False))
    logger = logging.getLogger("profiling_middleware")
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, stream
    logger.removeHandler(handler)
    logger.level, logger.propagate = before


def test_failures_and_losses_are_counted_and_nothing_else(log: tuple[logging.Logger, io.StringIO], moto: Moto) -> None:
    logger, stream = log
    way = Uploads(UnsteadyStore(), Backlog(None, Memory(100), logger), logger, lambda *_: None)
    way.warm_up()
    way.add(make_artifact("0" * 16, b"x" * 10))  # stored
    way.add(make_artifact("1" * 16, b"x" * 10))  # not stored, and lost at the end
    way.add(make_artifact("2" * 16, b"x" * 101))  # lost, since it is too big to wait
    way.finish(30)
    lines = stream.getvalue().splitlines()
    counts = way.counts
    assert (counts.stored, counts.dropped) == (1, 2)
    assert counts.failures >= 1

    found = {name: _matching(moto, pattern, lines) for name, pattern in _patterns().items()}

    assert len(found["not-stored"]) == counts.failures
    assert len(found["lost"]) == counts.dropped
    assert found["no-spool"] == []
    others = [line for line in lines if line not in found["not-stored"] + found["lost"]]
    assert [line.split()[1:3] for line in others] == [
        ["profiling:", "s3://stl-debugging-prod"],
        ["profiling:", "stored"],
    ]


def test_a_spool_that_cannot_be_used_is_counted(log: tuple[logging.Logger, io.StringIO], moto: Moto) -> None:
    logger, stream = log

    def of_root() -> Spool:
        raise PermissionError(13, "Permission denied", "/var/spool/profiling/sample-app")

    Backlog(of_root, Memory(), logger).add(make_artifact("0" * 16, b"x"))

    (line,) = stream.getvalue().splitlines()
    assert [name for name, pattern in _patterns().items() if _matching(moto, pattern, [line])] == ["no-spool"]


def refused_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no lifespan at whose start-up they could be refused."""
    monkeypatch.setenv("PROFILE_INTERVAL", "soon")

    async def application(*_: object) -> None:
        """Answers nothing."""

    scope = {"type": "http", "path": "/orders", "headers": []}
    asyncio.run(ProfilingMiddleware(application)(scope, None, None))  # type: ignore[arg-type]


def asgi_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "ProfilerService", _broken)
    ProfilingMiddleware(_broken)


def wsgi_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsgi, "ProfilerService", _broken)
    WSGIProfilingMiddleware(_broken)


def profiler_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(Profiler, "shared", _broken)
    ProfilerService(Settings()).start()


@pytest.mark.parametrize(
    "begin",
    [refused_settings, asgi_that_fails, wsgi_that_fails, profiler_that_does_not_start],
    ids=lambda f: f.__name__,
)
def test_a_service_that_is_not_profiled_is_counted_once(
    begin: Callable[[pytest.MonkeyPatch], None],
    log: tuple[logging.Logger, io.StringIO],
    moto: Moto,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, stream = log

    begin(monkeypatch)

    eventually(lambda: stream.getvalue().endswith("\n"), "it is logged")
    lines = stream.getvalue().splitlines()
    found = {name: len(_matching(moto, pattern, lines)) for name, pattern in _patterns().items()}
    assert {name: count for name, count in found.items() if count} == {"stays-off": 1}, lines


def test_every_error_of_the_way_to_the_store_and_of_the_middlewares_is_counted(moto: Moto) -> None:
    errors = [
        str(call.args[0].value)
        for module in (uploads, backlog, asgi, wsgi)
        for call in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("error", "exception", "critical")
        and isinstance(call.args[0], ast.Constant)
    ]
    assert len(errors) >= 7

    counted = [line for pattern in _patterns().values() for line in _matching(moto, pattern, errors)]

    assert set(errors) - set(counted) == COVERED_BY_OTHERS


def _broken(*_: object, **__: object) -> Any:
    raise ZeroDivisionError


def _patterns() -> dict[str, str]:
    found = re.findall(r'^ +([a-z-]+) = {\n +pattern += ("(?:[^"\\]|\\.)*")', ALARMS.read_text(), re.MULTILINE)
    assert {name for name, _ in found} == {"not-stored", "lost", "no-spool", "stays-off"}
    return {name: json.loads(pattern) for name, pattern in found}


def _matching(moto: Moto, pattern: str, lines: list[str]) -> list[str]:
    """The lines that CloudWatch Logs would count."""
    logs = moto.client("logs")
    group = f"/ecs/{time.monotonic_ns()}"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="app")
    events = [{"timestamp": int(time.time() * 1000), "message": line} for line in lines]
    logs.put_log_events(logGroupName=group, logStreamName="app", logEvents=events)
    answer = logs.filter_log_events(logGroupName=group, filterPattern=pattern)
    return [event["message"] for event in answer["events"]]
