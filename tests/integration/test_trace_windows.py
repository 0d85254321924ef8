"""Traces of periodic windows: of several workers, and of processes that are killed."""

from __future__ import annotations

import gzip
import random
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from integration_kit.buckets import Bucket, Key
from integration_kit.servers import Server, Servers
from integration_kit.traces import CLOCKS_NS, ReadSlice, ReadTrace
from integration_kit.waiting import eventually
from trace_kit.trace_processor import NotATraceError, TraceProcessor

pytestmark = pytest.mark.server

APP, STORED, WINDOWS, CUTS = "traced_asgi:app", "profiles/shop/trace/", 2, 6
SPOOLED = (".waiting", ".going", ".part")
PERIODIC = {
    "PROFILE_ENABLED": "1",
    "PROFILE_INTERVAL": "1.5s",
    "PROFILE_DURATION": "1.5s",
    "PROFILE_ENVIRONMENT": "dev",
    "PROFILE_SERVICE_NAME": "shop",
}


@dataclass(frozen=True, slots=True)
class Workers:
    """Two of them, what they stored, and what each noted of its requests."""

    bucket: Bucket
    traces: dict[str, ReadTrace]
    """By key."""
    noted: dict[int, list[Any]]
    """By process: its requests' paths, routes, statuses, beginnings and ends."""


@pytest.fixture(scope="module")
def workers(shared_servers: Servers, new_bucket: Callable[[], Bucket], trace_processor: TraceProcessor) -> Workers:
    """Some windows of each."""
    bucket = new_bucket()
    settings = {**bucket.settings(), **PERIODIC, "PROFILE_TYPES": "cpu,trace"}
    server = shared_servers.uvicorn(settings, "--workers", "2", "--no-access-log", app=APP)
    noted: dict[int, list[Any]] = {}
    # The one that is their parent says where it is going to listen.
    eventually(lambda: _listens(server), "they listen")

    def enough() -> bool:
        for number in range(10):
            assert server.get(f"/work/{number}?sleep=0.003&burn=0.001").status in (200, 418)
        windows: dict[str, int] = defaultdict(int)
        for key in bucket.list_keys(STORED):
            windows[bucket.metadata(key)["instance"]] += 1
        return len(windows) == 2 and min(windows.values()) >= WINDOWS

    eventually(enough, f"{WINDOWS} windows of each", pause=0.05)
    keys = bucket.list_keys(STORED)
    pids = {int(bucket.metadata(key)["instance"].split("-")[-2]) for key in keys}

    def ask() -> bool:
        told = server.get("/notes").json()
        noted[told["pid"]] = told["requests"]
        return set(noted) == pids

    eventually(ask, "both have told what they noted", pause=0)
    return Workers(bucket, {key: ReadTrace(trace_processor, bucket.body(key)) for key in keys}, noted)


def _listens(server: Server) -> bool:
    try:
        return server.get("/state").status == 200
    except ConnectionRefusedError:
        return False


@pytest.mark.s3
def test_every_window_of_every_worker_is_a_trace_that_says_whose_it_is(workers: Workers) -> None:
    bucket = workers.bucket
    of_cpu = {
        (Key.parse(key).started, bucket.metadata(key)["instance"]) for key in bucket.list_keys("profiles/shop/cpu/")
    }
    for key, trace in workers.traces.items():
        parsed, metadata = Key.parse(key), bucket.metadata(key)
        assert trace.problems == []
        assert metadata == {"capture-id": trace.capture_id, "instance": trace.about["instance"]}
        assert parsed.own in (None, f"{metadata['instance']}-{metadata['capture-id']}")
        window = trace.about["capture"].rpartition(" ")[2].rstrip(")")
        assert datetime.strptime(window, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) == parsed.started
        assert trace.trigger == "periodic"
        assert (parsed.started, metadata["instance"]) in of_cpu  # one window has one time, whatever the kind
        (pid,) = trace.processes
        assert f"-{pid}-" in metadata["instance"]
        # What is long enough to matter, and nothing else.
        assert trace.about["detail"] != "full"
        assert all(one.length >= 999_000 for one in trace.of("step"))
        assert all(one.length >= 99_000 for one in trace.of("gc"))
        assert not trace.of("task")
    assert len({trace.capture_id for trace in workers.traces.values()}) == len(workers.traces)


@pytest.mark.s3
def test_every_request_is_in_the_window_in_which_it_ended(workers: Workers) -> None:
    for pid, noted in workers.noted.items():
        traces = [trace for trace in workers.traces.values() if pid in trace.processes]
        found = [one for trace in traces for one in trace.of("request") if one.ended is not None]
        ended: list[ReadSlice] = []
        for one in sorted(found, key=lambda one: one.began):
            # One that ended while one window gave way to the next is in both, by clocks compared twice.
            if not ended or one.began > ended[-1].began + CLOCKS_NS:
                ended.append(one)
        assert len(ended) > 30
        # From the first that is told to the last, every one, and no other.
        told = [note for note in noted if ended[0].began <= note[3] + CLOCKS_NS and note[3] <= ended[-1].ended]
        told.sort(key=lambda note: note[3])
        assert len(told) == len(ended)
        for note, one in zip(told, ended, strict=True):
            assert one.contains(note[3], note[4])
            assert (one.arguments["route"], one.arguments["status"]) == (note[1], note[2])


@pytest.mark.s3
@pytest.mark.parametrize("how", ["plain", "gzipped"])
def test_traces_of_two_processes_one_behind_the_other_are_one(
    how: str, workers: Workers, trace_processor: TraceProcessor
) -> None:
    of_pid = {next(iter(trace.processes)): key for key, trace in workers.traces.items()}
    assert len(of_pid) == 2
    bodies = [workers.bucket.body(key) for key in of_pid.values()]
    trace = ReadTrace(trace_processor, b"".join(bodies if how == "gzipped" else map(gzip.decompress, bodies)))
    assert trace.problems == []
    assert set(trace.processes) == set(of_pid)
    assert len(trace.of("about")) == 2
    for pid, key in of_pid.items():
        alone = workers.traces[key]
        for category in ("request", "step", "thread"):
            assert len([one for one in trace.of(category) if one.pid == pid]) == len(alone.of(category))


@pytest.mark.s3
def test_all_windows_one_behind_the_other_are_one_in_whatever_order(
    workers: Workers, trace_processor: TraceProcessor
) -> None:
    keys = list(workers.traces)
    random.Random(0).shuffle(keys)
    trace = ReadTrace(trace_processor, b"".join(map(workers.bucket.body, keys)))
    assert trace.problems == []
    for category in ("about", "request", "step", "thread"):
        assert len(trace.of(category)) == sum(len(each.of(category)) for each in workers.traces.values())


# -- killed ------------------------------------------------------------------------------------------------------------


def test_who_is_killed_leaves_nothing_that_is_half(
    servers: Servers, tmp_path: Path, trace_processor: TraceProcessor, side_by_side: ThreadPoolExecutor
) -> None:
    store, temporary, spool = tmp_path / "store", tmp_path / "temporary", tmp_path / "spool"
    temporary.mkdir()
    spool.mkdir()
    often = {"PROFILE_INTERVAL": "1s", "PROFILE_DURATION": "1s", "PROFILE_TYPES": "trace"}
    places = {"PROFILE_STORE": store.as_uri(), "PROFILE_SPOOL_DIR": str(spool), "TMPDIR": str(temporary)}
    settings = {**PERIODIC, **often, **places}
    server = servers.uvicorn(settings, app=APP)
    eventually(lambda: list(store.rglob("*.gz")), "a window")
    side_by_side.submit(server.get, "/debug/pprof/trace?seconds=60").add_done_callback(lambda done: done.exception())
    eventually(lambda: "anyio.to_thread.run_sync" in server.get("/state").json()["replaced"], "a full one begins")
    storm = side_by_side.submit(server.get, "/storm?times=100")
    eventually(lambda: _open_in(server, spool), "it has written into a file")
    assert not storm.done()
    server.kill()
    assert list(temporary.rglob("*")) == []
    left = _captures_in(spool)
    assert [path for path in store.rglob("*") if path.is_file() and path.suffix != ".gz"] == []
    _all_load(store, trace_processor)

    before = set(store.rglob("*.gz"))
    after = servers.uvicorn(settings, app=APP)
    assert after.get("/work/1").status == 200
    eventually(lambda: set(store.rglob("*.gz")) - before, "the next one stores")
    eventually(lambda: not left & _captures_in(spool), "it puts or removes what was left in the spool")
    _all_load(store, trace_processor)


def _captures_in(spool: Path) -> set[str]:
    """The ids of those that wait, are being put, or are half written: `….{id}.{owner}.{state}`."""
    return {path.name.split(".")[-3] for path in spool.rglob("*") if path.suffix in SPOOLED}


def _open_in(server: Server, directory: Path) -> bool:
    """Whether a process has a file there that has no name."""
    files = [str(path.readlink()) for path in Path(f"/proc/{server.pid}/fd").iterdir() if path.is_symlink()]
    return any(name.startswith(str(directory)) and name.endswith("(deleted)") for name in files)


def _all_load(store: Path, trace_processor: TraceProcessor) -> None:
    files = list(store.rglob("*.gz"))
    assert files
    for file in files:
        assert Key.parse(file.relative_to(store).as_posix()).kind == "trace"
        trace = ReadTrace(trace_processor, file.read_bytes())
        assert (trace.problems, len(trace.about) > 0) == ([], True)


@pytest.mark.s3
def test_wherever_a_trace_is_cut_the_reader_goes_on_or_says_why(
    workers: Workers, trace_processor: TraceProcessor, side_by_side: ThreadPoolExecutor
) -> None:
    """Any other exception is a reader that crashed."""
    body = gzip.decompress(workers.bucket.body(max(workers.traces)))
    chosen = random.Random(0)

    def slices(length: int) -> int:
        try:
            (rows,) = trace_processor.query(body[:length], "select count(*) as slices from slice")
        except NotATraceError:
            return 0
        return int(rows[0]["slices"])

    found = list(side_by_side.map(slices, (chosen.randrange(1, len(body)) for _ in range(CUTS))))
    assert max(found) > 0
    print(f"{len(body)} bytes, slices found in {CUTS} parts of them: {sorted(found)}")
