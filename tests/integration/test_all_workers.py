"""All workers of a host in one profile: four workers of gunicorn, one of which works, and whoever is asked answers."""

from __future__ import annotations

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from integration_kit.go import Go
from integration_kit.http import Answer, bearer, open_request
from integration_kit.pprof import read_pprof
from integration_kit.servers import Server, Servers
from integration_kit.traces import ReadTrace
from integration_kit.waiting import eventually
from trace_kit.trace_processor import TraceProcessor

pytestmark = pytest.mark.server

TRIES, SECONDS = 3, 1
"""The promise is 20 of 20 with 3 seconds."""
WORKERS = 4
HOT = "one_burns.burn_cpu"
TOKEN = "tell-nobody"
KINDS_OF_SERVER = {
    "gthread": ("one_burns:wsgi", "--worker-class", "gthread", "--threads", "8"),
    "uvicorn": ("one_burns:asgi", "--worker-class", "uvicorn_worker.UvicornWorker"),
    "sync": ("one_burns:wsgi", "--worker-class", "sync"),
}
_ROW = re.compile(r"<tr><td><a href=\"cpu[^>]*>(\d+)</a></td><td>([^<]+)</td><td>([^<]+)</td><td>(yes|no)</td></tr>")


@dataclass
class Service:
    """Four workers."""

    server: Server
    store: Path
    burner_file: Path

    def get(self, path: str) -> Answer:
        return self.server.get(f"/debug/pprof/{path}", headers=bearer(TOKEN))

    def rows(self) -> list[tuple[str, ...]]:
        """What the index says of each worker: process id, instance, started, enabled."""
        return _ROW.findall(self.get("").text)

    def pids(self) -> set[int]:
        return {int(row[0]) for row in self.rows()}

    @property
    def burner(self) -> int:
        return int(self.burner_file.read_text())

    def wait(self) -> None:
        """All workers can be reached, and one of them works."""
        eventually(lambda: len(self.rows()) == WORKERS, "all workers listen")
        eventually(self.burner_file.exists, "one of them works")
        eventually(self.burner_file.read_text, "one of them works")

    def stored(self) -> list[str]:
        return [str(path.relative_to(self.store)) for path in self.store.rglob("*.gz")]

    def profiling_threads(self) -> dict[int, list[str]]:
        """Those of each worker, as far as its workers happened to be asked."""
        answers = [self.server.get("/hello").text.split() for _ in range(10 * WORKERS)]
        return {int(pid): names for pid, *names in answers}

    def asked(self) -> list[int]:
        """Who is being asked by another one just now: whose listening socket has connections."""
        table = Path("/proc/net/unix").read_text()
        names = re.findall(r" (\d\d) +\d+ \S*/[A-Za-z0-9-]+-(\d+)-[0-9a-f]{8}\.new$", table, re.MULTILINE)
        return sorted({int(pid) for state, pid in names if state == "03"} & self.workers_of_the_server())

    def workers_of_the_server(self) -> set[int]:
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text()
        return set(map(int, children.split()))


def start(servers: Servers, directory: Path, kind: str, **changes: str) -> Service:
    service = Service(None, directory / f"store-{kind}", directory / f"burner-{kind}")  # type: ignore[arg-type]
    settings = {
        "PROFILE_ENABLED": "1",
        "PROFILE_ENVIRONMENT": "prod",
        "PROFILE_TOKEN": TOKEN,
        "PROFILE_SERVICE_NAME": "shop",
        "PROFILE_STORE": service.store.as_uri(),
        "PROFILE_TYPES": "cpu",
        "TEST_APP_BURNER": str(service.burner_file),
    }
    app, *options = KINDS_OF_SERVER[kind]
    service.server = servers.gunicorn({**settings, **changes}, "--workers", str(WORKERS), *options, app=app)
    return service


@pytest.fixture(scope="module")
def running(shared_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Service]:
    directory = tmp_path_factory.mktemp("workers")
    services = {kind: start(shared_servers, directory, kind) for kind in KINDS_OF_SERVER}
    for service in services.values():
        service.wait()
    return services


@pytest.fixture(params=["gthread", "uvicorn"])
def service(request: pytest.FixtureRequest, running: dict[str, Service]) -> Service:
    running[request.param].wait()  # a test before may have ended a worker
    return running[request.param]


def test_whoever_is_asked_shows_who_works(service: Service) -> None:
    for _ in range(TRIES):
        answer = service.get(f"cpu?workers=all&seconds={SECONDS}&upload=0")
        assert (answer.status, answer.headers["X-Profile-Workers"]) == (200, f"{WORKERS} of {WORKERS}")
        profile = read_pprof(answer.body)
        assert max(profile.processes, key=lambda pid: profile.processes[pid][HOT]) == service.burner
        assert profile.processes[service.burner][HOT] > profile.total / 2
        assert not any(leaves[HOT] for pid, leaves in profile.processes.items() if pid != service.burner)
        assert profile.seconds == pytest.approx(SECONDS, abs=0.5)
        assert profile.instance == answer.headers["X-Profile-Instance"]
        theirs = {f"worker pid {pid}: instance: {instance}" for pid, instance, *_ in service.rows()}
        assert len(theirs.intersection(profile.comments)) == WORKERS - 1  # the one that was asked stands above


def test_it_is_stored_once(service: Service) -> None:
    before = set(service.stored())
    answer = service.get("cpu?workers=all&seconds=0.3")
    key = answer.headers["X-Profile-Key"]

    assert answer.headers["X-Profile-Upload"] == "queued"
    eventually(lambda: key in service.stored(), "it is stored")
    assert set(service.stored()) - before == {key}
    assert (service.store / key).read_bytes() == answer.body


def test_one_worker_is_reached_through_any(service: Service) -> None:
    answer = service.get(f"cpu?pid={service.burner}&seconds=0.5&upload=0")

    assert answer.headers["X-Profile-Workers"] == "1 of 1"
    assert read_pprof(answer.body).processes.keys() == {service.burner}
    assert read_pprof(answer.body).leaves[HOT]
    missing = service.get(f"cpu?pid={os.getpid()}&seconds=0.5")
    assert missing.status == 404
    assert f"has pid {os.getpid()}: there are {', '.join(map(str, sorted(service.pids())))}" in missing.text


def test_people_see_it_too(service: Service) -> None:
    text = service.get("cpu?workers=all&seconds=0.5&upload=0&format=text").text
    assert f"thread burner of process {service.burner}" in text
    assert f"workers: {WORKERS} of {WORKERS}" in text
    assert "<html" in service.get("cpu?workers=all&seconds=0.3&upload=0&format=html").text
    frames = json.loads(service.get("cpu?workers=all&seconds=0.5&upload=0&format=speedscope").text)["shared"]["frames"]
    assert HOT in {frame["name"] for frame in frames}


def test_the_index_lists_the_workers(service: Service) -> None:
    rows = service.rows()

    assert {int(pid) for pid, *_ in rows} == service.workers_of_the_server()
    assert all(f"-{pid}-" in instance for pid, instance, *_ in rows)
    assert {enabled for *_, enabled in rows} == {"yes"}
    assert "profiling-workers" in next(iter(service.profiling_threads().values()))
    assert all(started.endswith("UTC") for _, _, started, _ in rows)


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGKILL, "3 of 4 (missing: pid {}: ended)"), (signal.SIGTERM, "4 of 4 (partial: pid {}: SIGTERM)")],
    ids=["killed", "recycled"],
)
def test_a_worker_that_ends_meanwhile_costs_its_part(
    service: Service, side_by_side: ThreadPoolExecutor, number: int, said: str
) -> None:
    answering = side_by_side.submit(service.get, "cpu?workers=all&seconds=4&upload=0")
    asked = eventually(lambda: found if len(found := service.asked()) == WORKERS - 1 else None, "all are asked")
    victim = next(pid for pid in asked if pid != service.burner)
    os.kill(victim, number)
    answer = answering.result()

    assert answer.headers["X-Profile-Workers"] == said.format(victim)
    profile = read_pprof(answer.body)
    assert profile.processes[service.burner][HOT] > profile.total / 2
    assert f"workers: {said.format(victim)}" in profile.comments
    eventually(lambda: len(service.rows()) == WORKERS, "it is replaced")
    assert victim not in service.pids()


def test_a_worker_that_is_stopped_holds_nobody_up(service: Service) -> None:
    stopped = next(pid for pid in service.pids() if pid != service.burner)
    os.kill(stopped, signal.SIGSTOP)
    try:
        # Of several connections at once one reaches another worker.
        with ThreadPoolExecutor(8) as pool:
            waiting = [pool.submit(service.get, "cpu?workers=all&seconds=1&upload=0") for _ in range(2)]
            eventually(lambda: any(each.done() for each in waiting), "one of them answers", seconds=20)
            answers = [each.result() for each in waiting if each.done()]
            os.kill(stopped, signal.SIGCONT)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert f"3 of 4 (missing: pid {stopped}: did not begin within 5 s)" in {
        answer.headers["X-Profile-Workers"] for answer in answers
    }


def test_a_client_that_leaves_ends_it_everywhere(service: Service) -> None:
    connection = open_request(f"{service.server.url}/debug/pprof/cpu?workers=all&seconds=60", headers=bearer(TOKEN))
    eventually(lambda: len(service.asked()) == WORKERS - 1, "all are asked")
    connection.close()

    eventually(lambda: service.asked() == [], "nobody is asked any more", seconds=10)


def test_a_server_that_does_one_thing_at_a_time_answers_at_once(running: dict[str, Service]) -> None:
    service = running["sync"]
    answer = service.get("cpu?workers=all&seconds=1")

    assert (answer.status, answer.text.strip()) == (202, answer.headers["X-Profile-Key"])
    eventually(lambda: answer.text.strip() in service.stored(), "it is stored")
    profile = read_pprof((service.store / answer.text.strip()).read_bytes())
    assert profile.processes[service.burner][HOT]
    assert f"workers: {WORKERS} of {WORKERS}" in profile.comments
    assert service.get("cpu?workers=all&seconds=1&upload=0").status == 409


def test_nobody_without_the_token(service: Service) -> None:
    assert service.server.get("/debug/pprof/cpu?workers=all&seconds=1").status == 401


def test_go_picks_out_a_worker(go: Go, running: dict[str, Service], tmp_path: Path) -> None:
    service = running["gthread"]
    service.wait()
    path = tmp_path / "all.pprof.gz"
    path.write_bytes(service.get("cpu?workers=all&seconds=1&upload=0").body)
    tags = go.pprof("-tags", path)
    assert (tags.code, tags.errors) == (0, "")
    assert "pid: Total" in tags.output
    assert str(service.burner) in tags.output
    only = go.pprof("-top", f"-tagfocus=pid={service.burner}", path)
    assert (only.code, only.errors) == (0, f"tagfocus:Interpreted '{service.burner}' as range, not regexp\n")
    assert only.rows()[0] == HOT
    others = go.pprof("-top", f"-tagignore=pid={service.burner}", path)
    assert HOT not in others.rows()


def test_traces_of_all_workers_are_one(running: dict[str, Service], trace_processor: TraceProcessor) -> None:
    service = running["uvicorn"]
    service.wait()
    answer = service.get("trace?workers=all&seconds=1&upload=0")
    trace = ReadTrace(trace_processor, answer.unzipped())

    assert answer.headers["X-Profile-Workers"] == f"{WORKERS} of {WORKERS}"
    assert trace.problems == []
    assert trace.processes.keys() == service.pids()


# -- profiling off ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gthread", "uvicorn"])
def test_with_profiling_off_all_are_reached_and_no_thread_waits(kind: str, servers: Servers, tmp_path: Path) -> None:
    service = start(servers, tmp_path, kind, PROFILE_ENABLED="")
    service.wait()
    none: dict[int, list[str]] = {pid: [] for pid in service.workers_of_the_server()}
    eventually(lambda: service.profiling_threads() == none, "there are no threads")
    assert [(started, enabled) for _, _, started, enabled in service.rows()] == [("no", "no")] * WORKERS
    for _ in range(TRIES):
        answer = service.get(f"cpu?workers=all&seconds={SECONDS}&upload=0")
        assert (answer.status, answer.headers["X-Profile-Workers"]) == (200, f"{WORKERS} of {WORKERS}")
        profile = read_pprof(answer.body)
        assert profile.processes[service.burner][HOT] > profile.total / 2
    eventually(lambda: service.profiling_threads() == none, "all threads end")


def test_with_profiling_off_a_worker_without_a_loop_says_that_others_are_not_in_it(
    servers: Servers, tmp_path: Path
) -> None:
    service = start(servers, tmp_path, "sync", PROFILE_ENABLED="")
    eventually(service.burner_file.exists, "one of them works")
    key = service.get("cpu?workers=all&seconds=0.5").text.strip()
    eventually(lambda: key in service.stored(), "it is stored")

    comments = read_pprof((service.store / key).read_bytes()).comments
    assert "workers: 1 of 1 (those that do not listen are not in it: PROFILE_ENABLED)" in comments
