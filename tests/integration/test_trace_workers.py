"""Traces of gunicorn's workers, and of processes that fork."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from integration_kit.servers import APPS, Server, Servers
from integration_kit.traces import CLOCKS_NS, ReadTrace
from integration_kit.waiting import eventually
from trace_kit.trace_processor import TraceProcessor

pytestmark = pytest.mark.server

FLASK, TRACE = "traced_flask:server", "/debug/pprof/trace"
DEV = {"PROFILE_ENVIRONMENT": "dev", "PROFILE_SERVICE_NAME": "shop"}
PERIODIC = {**DEV, "PROFILE_ENABLED": "1", "PROFILE_INTERVAL": "1s", "PROFILE_DURATION": "1s", "PROFILE_TYPES": "trace"}
GTHREAD = ("--worker-class", "gthread", "--workers", "1", "--threads", "8")
NEAR_NS = 1_000_000


def test_requests_of_flask_in_the_threads_of_gunicorn(
    servers: Servers, side_by_side: ThreadPoolExecutor, trace_processor: TraceProcessor, need_native: Callable[[], None]
) -> None:
    need_native()
    server = servers.gunicorn(DEV, *GTHREAD, app=FLASK)
    assert server.facts()  # the first request of all loads the routes
    asked = time.monotonic_ns()
    answer = side_by_side.submit(server.get, f"{TRACE}?seconds=3")
    # Nothing shows from outside when it begins; what comes before is left out below.
    paths = [f"/items/{number}?sleep={number % 4 * 0.01:.2f}&burn={number % 3 * 0.004:.3f}" for number in range(120)]
    began = eventually(lambda: _after_the_first_tick(server, asked), "it has begun")
    answers = list(side_by_side.map(server.get, paths))
    assert {answer.status for answer in answers} == {200, 404}
    assert (server.get("/fail").status, server.get("/stream").status) == (500, 200)
    trace = ReadTrace(trace_processor, answer.result().unzipped())
    noted = [note for note in server.get("/notes").json()["requests"] if note[3] > began]
    noted = [note for note in noted if note[4] < asked + 3_000_000_000 and note[0] != "/notes"]
    assert trace.problems == []
    requests = trace.of("request")
    deviations = []
    for path, status, tid, began, ended in noted:
        route = "/items/<int:number>" if path.startswith("/items/") else path
        # Threads overlap: its own is the one that is drawn together with work in its thread.
        (one,) = [
            one
            for one in requests
            if one.contains(began, ended) and tid in {other.tid for other in trace.together(one)}
        ]
        assert (one.name, one.arguments["route"], one.arguments["method"]) == (f"GET {route}", route, "GET")
        assert one.arguments["status"] == status
        (work,) = [other for other in trace.together(one) if other.category == "executor"]
        assert work.name == "ThreadWorker.handle"
        deviations.append(one.length - (ended - began))
    print(f"WSGI: lengths of requests: {len(deviations)}, worst {max(deviations) / 1e3:.1f} µs")
    assert len(deviations) > 60
    assert sum(each < NEAR_NS for each in deviations) >= 0.95 * len(deviations)

    threads = {tid for _, _, tid, _, _ in noted}
    states = [one for one in trace.of("thread") if one.tid in threads]
    assert {"runs", "sleep", "idle"} <= {one.name for one in states}
    assert "traced_flask.item" in {one.arguments.get("function") for one in states if one.name == "sleep"}
    hot = [one for one in trace.samples if one.frames[0].function == "traced_flask.burn_cpu"]
    assert len(hot) > 10
    assert {one.tid for one in hot} <= threads
    assert set(trace.processes.values()) == {"shop"}
    (pid,) = trace.processes
    assert trace.thread_names[pid] == "MainThread"  # though the master's main thread has another number


def _after_the_first_tick(server: Server, asked: int) -> int:
    now: int = server.get("/notes").json()["now"]
    return now if now > asked + 300_000_000 else 0


def test_a_forked_worker_has_its_event_loop_in_its_own_main_thread(
    servers: Servers, side_by_side: ThreadPoolExecutor, trace_processor: TraceProcessor, need_native: Callable[[], None]
) -> None:
    need_native()
    worker = ("--worker-class", "uvicorn_worker.UvicornWorker", "--workers", "1")
    server = servers.gunicorn(DEV, *worker, app="traced_asgi:app", hook=False)
    answer = side_by_side.submit(server.get, f"{TRACE}?seconds=1.5")
    state = eventually(lambda: (found := server.get("/state").json())["replaced"] and found, "it begins", pause=0.01)
    assert server.get("/stall?seconds=0.3").status == 200
    trace = ReadTrace(trace_processor, answer.result().unzipped())
    assert trace.problems == []
    assert trace.processes == {state["pid"]: "shop"}
    assert trace.thread_names[state["pid"]] == "MainThread"
    steps = [one for one in trace.slices if one.track == "event loop"]
    assert {(one.tid, one.pid) for one in steps} == {(state["pid"], state["pid"])}
    (stall,) = [one for one in trace.of("stall") if "run_asgi" in one.name]
    assert stall.arguments["function"] == "traced_asgi.stall"


def test_a_worker_that_is_replaced_in_the_middle_of_a_window(
    servers: Servers, tmp_path: Path, side_by_side: ThreadPoolExecutor, trace_processor: TraceProcessor
) -> None:
    settings = {**PERIODIC, "PROFILE_INTERVAL": "1h", "PROFILE_DURATION": "1h", "PROFILE_STORE": tmp_path.as_uri()}
    server = servers.gunicorn(settings, *GTHREAD, "--max-requests", "120", app=FLASK)
    served: dict[str, int] = {}

    def replaced() -> bool:
        for answer in side_by_side.map(server.get, [f"/items/{number}" for number in range(1, 7)]):
            assert answer.status == 200
            pid = answer.text.rpartition(" ")[2]
            served[pid] = served.get(pid, 0) + 1
        return len(served) == 3

    # A worker is profiled from a second after its start on.
    eventually(replaced, "the second one has been replaced, too", pause=0.1)
    first, second, _ = served
    traces = [ReadTrace(trace_processor, file.read_bytes()) for file in tmp_path.rglob("*.gz")]
    assert [trace.problems for trace in traces] == [[], []]
    assert {trace.about["instance"].split("-")[-2] for trace in traces} == {first, second}
    for trace in traces:
        assert trace.about["partial"] == "the service stopped"
        assert 10 < len(trace.of("request", "GET /items/<int:number>")) < 120
    for words in ("Traceback", "WORKER TIMEOUT", "LOST", "failed"):
        assert server.lines(words) == []


# -- fork --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_child_has_nothing_of_its_parents_trace(
    loop: str, servers: Servers, side_by_side: ThreadPoolExecutor, trace_processor: TraceProcessor
) -> None:
    server = servers.uvicorn(DEV, app="traced_asgi:app", loop=loop)
    answer = side_by_side.submit(server.get, f"{TRACE}?seconds=2")
    state = eventually(lambda: (found := server.get("/state").json())["replaced"] and found, "it begins")
    assert server.get("/work/1").status == 200
    for _ in range(2):
        child = server.get("/fork").json()
        assert (child["code"], child["worked"]) == (0, True)
        assert (child["replaced"], child["then"]) == ([], [])
    assert server.get("/state").json()["replaced"] == state["replaced"]
    assert server.get("/work/2").status == 200
    trace = ReadTrace(trace_processor, answer.result().unzipped())
    assert trace.problems == []
    assert set(trace.processes) == {state["pid"]}
    assert len(trace.of("request", "GET /work/{number:int}")) == 2
    assert [one.arguments["status"] for one in trace.of("request", "GET /fork")] == [200, 200]
    assert server.lines("profiling:") == []


def test_a_child_goes_on_with_a_tracer_of_its_own(
    servers: Servers, tmp_path: Path, trace_processor: TraceProcessor
) -> None:
    settings = {**PERIODIC, "PROFILE_STORE": tmp_path.as_uri()}
    program = servers.start([sys.executable, str(APPS / "traced_fork.py")], settings)
    assert program.process.wait(40) == 0, program.log
    assert "Error" not in program.log
    told: dict[int, Any] = {one["pid"]: one for one in map(json.loads, program.lines('{"pid"'))}
    assert len(told) == 2
    assert [one["tid"] for one in told.values()] == list(told)
    files = list(tmp_path.rglob("*.gz"))
    traces = [ReadTrace(trace_processor, file.read_bytes()) for file in files]
    assert [trace.problems for trace in traces] == [[]] * len(traces)
    assert len({trace.about["instance"] for trace in traces}) == 2
    for pid, one in told.items():
        own = [trace for trace in traces if pid in trace.processes]
        assert all(set(trace.processes) == {pid} and f"-{pid}-" in trace.about["instance"] for trace in own)
        steps = [step for trace in own for step in trace.slices if step.track == "event loop"]
        assert {step.tid for step in steps} == {pid}
        first, last = min(step.began for step in steps), max(step.ended or 0 for step in steps)
        bursts = [burst for burst in one["bursts"] if first <= burst[0] + CLOCKS_NS and burst[1] <= last + CLOCKS_NS]
        assert len(bursts) > 15
        for burst in bursts:
            assert [step for step in steps if step.contains(*burst)]
