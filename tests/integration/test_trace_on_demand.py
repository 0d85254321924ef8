"""Traces on demand: of the sample service, and what is asked for in the wrong way; afterwards all is as it was."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from integration_kit.buckets import Bucket, Key
from integration_kit.http import bearer, open_request
from integration_kit.servers import Server, Servers
from integration_kit.traces import ReadTrace
from integration_kit.waiting import eventually
from trace_kit.trace_processor import TraceProcessor

from sample_app.load import DEFAULT_MIX, run_load

pytestmark = pytest.mark.server

LOOPS = ("asyncio", "uvloop")
QUICK_SECONDS = 5.0
PROJECT = Path(__file__).parents[2]
TRACE = "/debug/pprof/trace"
DEV = {"PROFILE_ENVIRONMENT": "dev", "PROFILE_SERVICE_NAME": "shop"}
APP = "traced_asgi:app"


# -- the sample service ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample_traces(
    shared_servers: Servers, trace_processor: TraceProcessor, need_native: Callable[[], None]
) -> dict[str, ReadTrace]:
    """A full trace of the sample service under its load, and with some who pay at once, on each loop."""
    need_native()
    with ThreadPoolExecutor(16) as pool:
        running = {loop: _start_sample_app(shared_servers, loop) for loop in LOOPS}
        for server in running.values():
            assert server.facts()  # the first request of all loads the routes
        asked = {loop: pool.submit(server.get, f"{TRACE}?seconds=3") for loop, server in running.items()}
        loads = [pool.submit(asyncio.run, run_load(server.url, seconds=2.5)) for server in running.values()]
        while not all(load.done() for load in loads):
            for server in running.values():
                assert {answer.status for answer in pool.map(server.get, ["/checkout"] * 5)} == {200}
        assert [load.result().failures for load in loads] == [0, 0]
        return {loop: ReadTrace(trace_processor, answer.result().unzipped()) for loop, answer in asked.items()}


def _start_sample_app(servers: Servers, loop: str) -> Server:
    command = [sys.executable, "-m", "sample_app", "--loop", loop, "--port", "0", "--no-access-log"]
    return servers.start(command, {**DEV, "PYTHONPATH": str(PROJECT)})


@pytest.mark.parametrize("loop", LOOPS)
def test_sample_service_shows_what_it_does(loop: str, sample_traces: dict[str, ReadTrace]) -> None:
    trace = sample_traces[loop]
    assert trace.problems == []
    requests = [one for one in trace.of("request") if one.ended is not None]
    routes = Counter(one.arguments["route"] for one in requests)
    assert set(routes) - {TRACE} <= set(DEFAULT_MIX)
    assert sum(routes.values()) > 30
    for one in requests:
        assert (one.arguments["status"], one.arguments["method"]) == (200, "GET")
        together = trace.together(one)
        assert {"step", "task"} & {other.category for other in together}, one
    assert routes["/checkout"] >= 5
    # Five at once: each waits for those before it.
    waits = [one for one in trace.of("lock") if one.arguments["function"] == "sample_app.work.CardTerminal.pay"]
    assert max(one.length for one in waits) > 25_000_000
    assert {"hot", "report", "OrderBook.totals", "CardTerminal.pay"} <= {one.name for one in trace.of("executor")}
    hot = Counter(one.frames[0].function for one in trace.samples)
    assert hot.most_common(1)[0][0] == "sample_app.work.best_price"


@pytest.mark.parametrize("loop", LOOPS)
def test_what_blocks_the_loop_of_the_sample_service(loop: str, sample_traces: dict[str, ReadTrace]) -> None:
    trace = sample_traces[loop]
    mistakes = trace.of("request", "GET /mistake")
    assert mistakes
    for one in mistakes:
        longest = max(trace.together(one), key=lambda other: other.length if other.category != "task" else 0)
        assert longest.category in ("step", "stall")
        assert longest.length > 30_000_000
        assert longest.track == "event loop"


@pytest.mark.parametrize("loop", LOOPS)
def test_tasks_of_a_group_belong_to_the_request_that_made_them(loop: str, sample_traces: dict[str, ReadTrace]) -> None:
    trace = sample_traces[loop]
    fanouts = [one for one in trace.of("request", "GET /fanout") if one.ended is not None]
    assert fanouts
    for one in fanouts:
        suppliers = [other for other in trace.together(one) if other.category == "task" and "supplier" in other.name]
        assert len(suppliers) == 5
        assert {other.name for other in suppliers} == {"ask_supplier"}
        assert sorted(other.arguments["task"] for other in suppliers) == [f"supplier-{number}" for number in range(5)]
        assert all(one.contains(other.began, other.ended) for other in suppliers)


# -- as they are answered ----------------------------------------------------------------------------------------------


@pytest.mark.s3
def test_what_is_answered_is_what_is_stored(servers: Servers, bucket: Bucket, trace_processor: TraceProcessor) -> None:
    server = servers.uvicorn(bucket.settings(), app=APP)
    answer = server.get(f"{TRACE}?seconds=0.5&detail=long")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="trace.gz"'
    assert answer.headers["Content-Encoding"] is None
    trace = ReadTrace(trace_processor, answer.unzipped())
    assert trace.about["detail"] != "full"
    assert trace.trigger == "on demand"
    assert (trace.about["instance"], trace.capture_id) == (
        answer.headers["X-Profile-Instance"],
        answer.headers["X-Profile-Capture-Id"],
    )
    key = answer.headers["X-Profile-Key"]
    assert (Key.parse(key).kind, Key.parse(key).own) == ("trace", f"{trace.about['instance']}-{trace.capture_id}")
    eventually(lambda: bucket.list_keys(key), "it is stored")
    assert bucket.body(key) == answer.body
    assert bucket.metadata(key) == {"capture-id": trace.capture_id, "instance": trace.about["instance"]}


# -- as they were ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=LOOPS)
def off(request: pytest.FixtureRequest, shared_servers: Servers) -> Server:
    """A service with profiling off, on a developer's machine."""
    return shared_servers.uvicorn(DEV, app=APP, loop=request.param)


def _is_untouched(server: Server) -> bool:
    state = server.get("/state").json()
    return not state["replaced"] and state["answers by"].startswith("ServerErrorMiddleware.")


def _is_idle(server: Server) -> bool:
    return _is_untouched(server) and not server.profiling_threads()


def test_all_is_put_back_after_a_trace(
    off: Server, side_by_side: ThreadPoolExecutor, trace_processor: TraceProcessor
) -> None:
    assert _is_untouched(off)
    for detail in ("full", "long"):
        asked = side_by_side.submit(off.get, f"{TRACE}?seconds=1&detail={detail}")
        state = eventually(lambda: (found := off.get("/state").json())["replaced"] and found, "it begins", pause=0.01)
        replaced = {"Handle._run", "_WorkItem.__init__", "_WorkItem.run", "gc.callbacks"}
        assert set(state["replaced"]) == replaced | ({"anyio.to_thread.run_sync"} if detail == "full" else set())
        assert state["answers by"] == "RequestSpan.send"
        assert off.get("/work/1?sleep=0.01").status == 200
        trace = ReadTrace(trace_processor, asked.result().unzipped())
        assert trace.problems == []
        assert len(trace.of("request", "GET /work/{number:int}")) == 1
        eventually(lambda: _is_untouched(off), "all is as it was")


def test_two_at_once_each_have_their_own(
    off: Server, side_by_side: ThreadPoolExecutor, trace_processor: TraceProcessor
) -> None:
    long = side_by_side.submit(off.get, f"{TRACE}?seconds=1.5&detail=long")
    eventually(lambda: off.get("/state").json()["replaced"], "it begins", pause=0.01)
    assert off.get("/work/1").status == 200
    full = side_by_side.submit(off.get, f"{TRACE}?seconds=0.5")
    eventually(lambda: "anyio.to_thread.run_sync" in off.get("/state").json()["replaced"], "a full one", pause=0.01)
    assert off.get("/work/2").status == 200
    traces = [ReadTrace(trace_processor, one.result().unzipped()) for one in (long, full)]
    assert [trace.problems for trace in traces] == [[], []]
    works = [len(trace.of("request", "GET /work/{number:int}")) for trace in traces]
    assert works[0] == 2
    assert works[1] in (1, 2)  # the first one may be in the chunk in which it began
    eventually(lambda: _is_untouched(off), "all is as it was")


def test_who_leaves_ends_the_trace(off: Server) -> None:
    with open_request(f"{off.url}{TRACE}?seconds=60"):
        eventually(lambda: off.get("/state").json()["replaced"], "it begins")
    eventually(lambda: _is_idle(off), "all is as it was, and no thread is left", seconds=10)


@pytest.mark.parametrize("loop", LOOPS)
def test_without_the_extension_it_says_what_it_does_not_see(
    loop: str, servers: Servers, side_by_side: ThreadPoolExecutor, trace_processor: TraceProcessor
) -> None:
    server = servers.uvicorn({**DEV, "PROFILE_ENGINE": "python"}, app=APP, loop=loop)
    assert server.url
    asked = side_by_side.submit(server.get, f"{TRACE}?seconds=1")
    eventually(lambda: server.get("/state").json()["replaced"], "it begins", pause=0.01)
    for path in ("/work/1?sleep=0.01&burn=0.002", "/stall?seconds=0.3"):
        assert server.get(path).status == 200
    trace = ReadTrace(trace_processor, asked.result().unzipped())
    assert trace.problems == []
    (request,) = trace.of("request", "GET /work/{number:int}")
    steps = [one for one in trace.together(request) if one.category == "step"]
    stalls = [one for one in trace.of("stall") if "run_asgi" in one.name]
    limit = "without the extension steps of tasks are not seen on uvloop"
    if loop == "asyncio":
        assert len(steps) >= 2
        assert stalls[0].arguments["function"] == "traced_asgi.stall"
        assert limit not in trace.about.values()
    else:
        assert (steps, stalls) == ([], [])
        assert limit in trace.about.values()


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("last=0", "last = '0' is out of range: use a number of seconds, more than 0 and at most 30 (what is kept)"),
        ("last=31", "last = '31' is out of range"),
        ("last=-1", "last = '-1' is not such a number"),
        ("last=", "last = '' is not such a number"),
        ("last=1e1", "last = '1e1' is not such a number"),
        ("last=5&last=6", "last is given twice ('5', '6'): give it once"),
        ("last=5&seconds=1", "leave out one of the two"),
        ("last=5&detail=full", "leave out detail"),
        ("detail=everything", "detail = 'everything' is unknown: choose from full, long"),
        ("detail=", "detail = '' is unknown: choose from full, long"),
        ("seconds=0", "seconds = '0' is out of range"),
        ("seconds=301", "seconds = '301' is out of range: use a number of seconds, more than 0 and at most 300"),
        ("format=html", "format = 'html' is for profiles: a trace is for Perfetto, leave it out"),
        ("format=pprof", "format = 'pprof' is for profiles"),
        ("format=svg", "format = 'svg' is for profiles"),
        ("debug=1", "debug = '1' is for profiles"),
        ("details=full", "'details' is no parameter here: choose from seconds,"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused_at_once(query: str, words: str, off: Server) -> None:
    answer = off.get(f"{TRACE}?{query}")
    assert (answer.status, answer.headers["X-Go-Pprof"]) == (400, "1")
    assert words in answer.text
    assert answer.seconds < QUICK_SECONDS
    eventually(lambda: _is_untouched(off), "nothing is traced", seconds=2)


@pytest.mark.parametrize("query", ["last=5", "detail=full"])
def test_other_kinds_are_no_traces(query: str, off: Server) -> None:
    name, _, value = query.partition("=")
    answer = off.get(f"/debug/pprof/cpu?{query}")
    assert (answer.status, answer.seconds < QUICK_SECONDS) == (400, True)
    assert f"{name} = '{value}' is for a trace, and this is a cpu profile" in answer.text


def test_without_a_flight_recorder_nobody_gets_the_last_seconds(off: Server) -> None:
    answer = off.get(f"{TRACE}?last=5")
    assert (answer.status, answer.seconds < QUICK_SECONDS) == (409, True)
    assert "set PROFILE_ENABLED, and name trace in PROFILE_TYPES" in answer.text
    assert "set PROFILE_ENABLED" in off.get("/snapshot").json()["refused"]
    eventually(lambda: _is_untouched(off), "nothing is traced", seconds=2)


def test_who_may_not_gets_nothing_and_nothing_is_traced(servers: Servers) -> None:
    token = "tell-nobody"
    guarded = servers.uvicorn({**DEV, "PROFILE_TOKEN": token}, app=APP)
    unsaid = servers.uvicorn({}, app=APP)
    for server, headers, status in (
        (guarded, {}, 401),
        (guarded, bearer("guessed-it"), 401),
        (unsaid, {}, 403),
    ):
        for path in (f"{TRACE}?seconds=30", f"{TRACE}?last=5", f"{TRACE}?detail=nonsense"):
            answer = server.get(path, headers=headers)
            assert (answer.status, answer.seconds < QUICK_SECONDS) == (status, True)
            eventually(lambda server=server: _is_idle(server), "nothing is traced", seconds=2)
    assert guarded.get(f"{TRACE}?seconds=0.1", headers=bearer(token)).status == 200


@pytest.mark.s3
def test_an_answer_that_nobody_reads_to_its_end_is_stored_whole(
    servers: Servers, bucket: Bucket, trace_processor: TraceProcessor
) -> None:
    server = servers.uvicorn(bucket.settings(), app=APP)
    with open_request(f"{server.url}{TRACE}?seconds=0.5") as connection:
        assert connection.recv(64).startswith(b"HTTP/1.1 200 ")
    (key,) = bucket.wait_for_keys(1, "profiles/shop/trace/")
    assert ReadTrace(trace_processor, bucket.body(key)).problems == []
