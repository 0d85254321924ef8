"""The flight recorder: what was slow lies in the store before anybody asks, and whoever asks gets the last seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from integration_kit.buckets import Bucket, Key
from integration_kit.servers import Server, Servers
from integration_kit.traces import ReadSlice, ReadTrace
from integration_kit.waiting import eventually
from trace_kit.trace_processor import TraceProcessor
from websockets.sync.client import connect

pytestmark = pytest.mark.server

LOOPS = ("asyncio", "uvloop")
RECORDING = {
    "PROFILE_ENABLED": "1",
    "PROFILE_TYPES": "trace",
    "PROFILE_INTERVAL": "1h",
    "PROFILE_DURATION": "1h",
    "PROFILE_SLOW_REQUEST": "300ms",
    "PROFILE_ENVIRONMENT": "dev",
    "PROFILE_SERVICE_NAME": "shop",
}
NEAR_NS, QUICK_SECONDS = 1_000_000, 2.0
STORED = "profiles/shop/trace/"
LAST = "/debug/pprof/trace?last=10&upload=0"
SLOW = "GET /slow"


def _start(servers: Servers, settings: dict[str, str], loop: str) -> Server:
    server = servers.uvicorn({**settings, **RECORDING}, app="traced_asgi:app", loop=loop)
    assert server.url
    return server


def _wait_until_it_records(server: Server) -> None:
    eventually(lambda: server.get("/state").json()["replaced"], "it records")


def _noted(server: Server, path: str) -> list[Any]:
    return [note for note in server.get("/notes").json()["requests"] if note[0] == path]


def _is_as_noted(one: ReadSlice, note: Any) -> bool:
    _, route, status, began, ended = note
    as_long = abs(one.length - (ended - began)) < NEAR_NS and one.contains(began, ended)
    return as_long and (one.arguments["route"], one.arguments["status"]) == (route, status)


@pytest.mark.s3
def test_a_slow_request_lies_in_the_store_before_anybody_asks(
    servers: Servers,
    new_bucket: Callable[[], Bucket],
    trace_processor: TraceProcessor,
    side_by_side: ThreadPoolExecutor,
) -> None:
    buckets = {loop: new_bucket() for loop in LOOPS}
    running = {loop: _start(servers, bucket.settings(), loop) for loop, bucket in buckets.items()}

    def look(loop: str) -> None:
        server, bucket = running[loop], buckets[loop]
        _wait_until_it_records(server)
        assert server.get("/work/1").status == 200
        assert bucket.list_keys() == []
        assert server.get("/slow").status == 203
        (key,) = bucket.wait_for_keys(1)
        assert (Key.parse(key).kind, Key.parse(key).own is None) == ("trace", False)
        trace = ReadTrace(trace_processor, bucket.body(key))
        assert trace.problems == []
        assert trace.trigger == "slow request"
        assert bucket.metadata(key) == {"capture-id": trace.capture_id, "instance": trace.about["instance"]}
        (slow,) = trace.of("request", SLOW)
        (note,) = _noted(server, "/slow")
        assert _is_as_noted(slow, note)
        assert len(trace.of("request", "GET /work/{number:int}")) == 1  # what came before it is there as well
        _a_second_one_right_after_is_not_stored_again(server, bucket, trace_processor)
        _code_gets_it_too(server, bucket, trace_processor)

    assert list(side_by_side.map(look, LOOPS)) == [None, None]


def _a_second_one_right_after_is_not_stored_again(
    server: Server, bucket: Bucket, trace_processor: TraceProcessor
) -> None:
    assert server.get("/slow").status == 203
    answer = server.get(LAST)
    assert answer.status == 200
    assert answer.seconds < QUICK_SECONDS  # it is recorded already
    trace = ReadTrace(trace_processor, answer.unzipped())
    assert trace.problems == []
    assert trace.about["asked for"].startswith("the last 10 s")
    slow, noted = trace.of("request", SLOW), _noted(server, "/slow")
    assert len(slow) == len(noted) == 2
    assert all(map(_is_as_noted, slow, noted))
    # Whatever was to be stored by then comes before this.
    cpu = server.get("/debug/pprof/cpu?seconds=0.1")
    eventually(lambda: bucket.list_keys(cpu.headers["X-Profile-Key"]), "it is stored")
    assert len(bucket.list_keys(STORED)) == 1


def _code_gets_it_too(server: Server, bucket: Bucket, trace_processor: TraceProcessor) -> None:
    told = server.get("/snapshot").json()
    eventually(lambda: bucket.list_keys(told["key"]), "it is stored")
    body = bucket.body(told["key"])
    assert len(body) == told["bytes"]
    trace = ReadTrace(trace_processor, body)
    assert (trace.problems, trace.trigger) == ([], "on demand")
    assert len(trace.of("request", SLOW)) == 2
    (itself,) = trace.of("request", "GET /snapshot")
    assert itself.ended is None  # it goes on while the trace is taken
    for last in ("0", "31", "-1"):
        assert f"last = {float(last)} is out of range" in server.get(f"/snapshot?last={last}").json()["refused"]


def test_what_holds_up_the_loop_is_stored_without_a_request(
    servers: Servers, tmp_path: Path, trace_processor: TraceProcessor, need_native: Callable[[], None]
) -> None:
    need_native()
    stores = {loop: tmp_path / loop for loop in LOOPS}
    running = {loop: _start(servers, {"PROFILE_STORE": store.as_uri()}, loop) for loop, store in stores.items()}
    for server in running.values():
        _wait_until_it_records(server)
        assert server.get("/later?seconds=0.35").status == 200
    for loop, store in stores.items():
        (file,) = eventually(lambda store=store: list(store.rglob("*.gz")), f"it is stored on {loop}")
        assert Key.parse(file.relative_to(store).as_posix()).kind == "trace"
        trace = ReadTrace(trace_processor, file.read_bytes())
        assert (trace.problems, trace.trigger) == ([], "stall")
        (stall,) = trace.of("stall", "stall: hold_up")
        assert stall.arguments["function"] == "traced_asgi.hold_up"
        assert stall.length > 350_000_000
        assert [one for one in trace.of("request") if one.length > 300_000_000] == []


def test_the_last_seconds_are_no_more_than_that(
    servers: Servers, tmp_path: Path, trace_processor: TraceProcessor
) -> None:
    server = _start(servers, {"PROFILE_STORE": tmp_path.as_uri()}, "asyncio")
    _wait_until_it_records(server)
    assert server.get("/slow?seconds=0.01").status == 203

    def slow(last: str) -> list[ReadSlice]:
        answer = server.get(f"/debug/pprof/trace?last={last}&upload=0")
        return ReadTrace(trace_processor, answer.unzipped()).of("request", SLOW)

    assert len(slow("30")) == 1
    eventually(lambda: not slow("0.5"), "it is longer ago than that", pause=0.2)
    assert len(slow("30")) == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_a_websocket_is_told_of_and_not_slow_for_being_long(
    loop: str, servers: Servers, tmp_path: Path, trace_processor: TraceProcessor
) -> None:
    server = _start(servers, {"PROFILE_STORE": tmp_path.as_uri()}, loop)
    _wait_until_it_records(server)
    began = time.monotonic_ns()
    with connect(f"{server.url.replace('http', 'ws')}/socket") as socket:
        eventually(lambda: time.monotonic_ns() - began > 400_000_000, "longer than a request may be")
        socket.send("hello")
        assert socket.recv() == "hello"
    # What is written by then would be stored before this is.
    eventually(lambda: _sockets(server, trace_processor), "it has ended")
    cpu = server.get("/debug/pprof/cpu?seconds=0.1")
    eventually((tmp_path / cpu.headers["X-Profile-Key"]).exists, "it is stored")
    assert [path.name for path in tmp_path.rglob("*.trace.gz")] == []


def _sockets(server: Server, trace_processor: TraceProcessor) -> list[ReadSlice]:
    trace = ReadTrace(trace_processor, server.get(LAST).unzipped())
    ended = [one for one in trace.of("request", "/socket") if one.ended is not None]
    assert all(one.arguments["status"] == 101 and one.length > 400_000_000 for one in ended)
    return ended
