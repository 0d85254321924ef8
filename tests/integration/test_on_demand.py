"""Captures on demand, over HTTP, as curl, scrapers and impatient people ask for them."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise

import pytest
from integration_kit.buckets import Bucket, Key
from integration_kit.http import fetch, open_request, receive_all, waiting_clients
from integration_kit.pprof import read_pprof
from integration_kit.servers import Server, Servers
from integration_kit.waiting import eventually

pytestmark = pytest.mark.server

MAX_SECONDS, AT_ONCE = 90, 8
# Less than any capture that is asked for where it counts; a busy machine may take a second to answer.
QUICK_SECONDS = 5.0


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def off(request: pytest.FixtureRequest, shared_servers: Servers) -> Server:
    """A service with profiling off, on a developer's machine."""
    settings = {"PROFILE_ENVIRONMENT": "dev", "PROFILE_SERVICE_NAME": "shop", "PROFILE_MAX_SECONDS": str(MAX_SECONDS)}
    return shared_servers.uvicorn(settings, loop=request.param)


@pytest.fixture(scope="module")
def storing(shared_servers: Servers, new_bucket: Callable[[], Bucket]) -> tuple[Server, Bucket]:
    """A service that is profiled all the time and stores everything."""
    bucket = new_bucket()
    settings = bucket.settings(
        PROFILE_ENABLED="1", PROFILE_INTERVAL="2s", PROFILE_DURATION="2s", PROFILE_TYPES="cpu", TEST_APP_BURNS="1"
    )
    return shared_servers.uvicorn(settings), bucket


@pytest.mark.s3
@pytest.mark.parametrize(("route", "kind"), [("cpu", "cpu"), ("profile", "cpu"), ("wall", "wall")])
def test_what_is_answered_is_what_is_stored(route: str, kind: str, storing: tuple[Server, Bucket]) -> None:
    server, bucket = storing
    answer = server.get(f"/debug/pprof/{route}?seconds=0.5")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{kind}.pprof.gz"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Encoding"] is None  # or curl -o would not keep the gzip
    assert answer.headers["X-Profile-Upload"] == "queued"
    profile = read_pprof(answer.body)
    assert profile.sample_types[-1] == (kind, "nanoseconds")
    assert profile.instance == answer.headers["X-Profile-Instance"]
    assert profile.capture_id == answer.headers["X-Profile-Capture-Id"]

    key = answer.headers["X-Profile-Key"]
    assert Key.parse(key) == Key("shop", kind, profile.started, f"{profile.instance}-{profile.capture_id}")
    assert bucket.profile(key) == profile
    assert bucket.body(key) == answer.body


@pytest.mark.s3
def test_three_captures_at_once_beside_a_window_are_all_whole(
    storing: tuple[Server, Bucket], side_by_side: ThreadPoolExecutor
) -> None:
    server, bucket = storing
    asked = {
        path: side_by_side.submit(server.get, f"/debug/pprof/{path}")
        for path in ("cpu?seconds=2", "wall?seconds=1.5", "profile?seconds=1")
    }
    answers = {path: future.result() for path, future in asked.items()}
    assert [answer.status for answer in answers.values()] == [200, 200, 200]
    ended_ns = time.time_ns()
    assert len({answer.headers["X-Profile-Key"] for answer in answers.values()}) == 3
    for path, answer in answers.items():
        wanted = float(path.partition("=")[2])
        profile = bucket.profile(answer.headers["X-Profile-Key"])
        assert profile.seconds == pytest.approx(wanted, abs=0.4)
        assert profile.partial is None
        # Each capture has its own share, whoever else listens: of a thread's time all that passed, of its CPU time
        # about half, less when the machine is busy.
        least, most = (0.9, 1.1) if "wall" in path else (0.1, 0.8)
        assert least < profile.threads["burner"] / profile.duration_ns < most

    # The windows went on meanwhile, whole and on time.
    def windows() -> list[str]:
        return [key for key in bucket.list_keys("profiles/shop/cpu/") if Key.parse(key).own is None]

    eventually(lambda: bucket.profile(windows()[-1]).time_ns > ended_ns - 2_000_000_000, "a later window", pause=0.2)
    profiles = [bucket.profile(key) for key in windows()]
    for before, after in pairwise(profiles):
        assert (after.time_ns - before.time_ns) / 1e9 == pytest.approx(2, abs=0.5)
        assert after.seconds == pytest.approx(2, abs=0.5)
        assert after.partial is None


@pytest.mark.s3
def test_whoever_does_not_wait_gets_the_key_at_once(storing: tuple[Server, Bucket]) -> None:
    server, bucket = storing
    answer = server.get("/debug/pprof/cpu?seconds=6&wait=0")
    assert (answer.status, answer.text.strip()) == (202, answer.headers["X-Profile-Key"])
    assert answer.seconds < QUICK_SECONDS
    profile = bucket.profile(answer.headers["X-Profile-Key"])
    assert profile.seconds == pytest.approx(6, abs=0.5)


@pytest.mark.s3
def test_scrapers_keep_their_captures_out_of_the_store(storing: tuple[Server, Bucket]) -> None:
    server, bucket = storing
    answer = server.get("/debug/pprof/cpu?seconds=0.2&upload=0")
    assert (answer.status, answer.headers["X-Profile-Upload"], answer.headers["X-Profile-Key"]) == (200, "off", None)
    later = server.get("/debug/pprof/cpu?seconds=0.2")
    bucket.profile(later.headers["X-Profile-Key"])
    capture_id = answer.headers["X-Profile-Capture-Id"]
    assert [key for key in bucket.list_keys() if capture_id in key] == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("seconds=0", "'0' is out of range"),
        ("seconds=-1", "'-1' is not such a number"),
        ("seconds=abc", "'abc' is not such a number"),
        ("seconds=1e9", "'1e9' is not such a number"),
        ("seconds=", "'' is not such a number"),
        ("seconds=nan", "'nan' is not such a number"),
        ("seconds=400", f"'400' is out of range: use a number of seconds, more than 0 and at most {MAX_SECONDS}"),
        ("seconds=9&seconds=8", "seconds is given twice ('9', '8'): give it once"),
        ("second=9", "'second' is no parameter here: choose from seconds,"),
        ("seconds=9&format=svg", "'svg' is unknown: choose from pprof, html, speedscope, text"),
        ("seconds=9&wait=0&upload=0", "would lose the capture"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused_at_once(query: str, words: str, off: Server) -> None:
    answer = off.get(f"/debug/pprof/cpu?{query}")
    assert answer.status == 400
    assert answer.seconds < QUICK_SECONDS
    assert words in answer.text
    assert answer.headers["X-Go-Pprof"] == "1"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    # The first request of all loads the routes on a thread, which may be seen ending.
    eventually(lambda: off.profiling_threads() == [], "no thread", seconds=2)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/debug/pprof/", "/debug/pprof/cpu?seconds=30"])
def test_only_get_is_allowed(method: str, path: str, off: Server) -> None:
    answer = fetch(f"{off.url}{path}", method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    assert answer.seconds < QUICK_SECONDS


@pytest.mark.parametrize("path", ["/debug/pprof/heap", "/debug/pprof/cpu/", "/debug/pprof/../x", "/debug/pprof/CPU"])
def test_what_does_not_exist_is_404(path: str, off: Server) -> None:
    answer = off.get(path)
    assert (answer.status, answer.headers["X-Go-Pprof"]) == (404, "1")
    assert "cpu" in answer.text


def test_paths_that_only_look_alike_are_the_applications(off: Server) -> None:
    assert off.get("/debug/pprofx").text == "Not Found"
    assert off.get("/other/debug/pprof/").text == "Not Found"


def test_views_for_people(off: Server, side_by_side: ThreadPoolExecutor) -> None:
    asked = {
        view: side_by_side.submit(off.get, f"/debug/pprof/cpu?seconds=1&{view}")
        for view in ("format=html", "format=speedscope", "format=text", "debug=1")
    }
    # Until all have answered: on a busy machine a capture may begin late.
    while not all(future.done() for future in asked.values()):
        off.get("/burn?seconds=0.2")
    answers = {view: future.result() for view, future in asked.items()}
    assert {view: (answer.status, answer.headers["Content-Type"]) for view, answer in answers.items()} == {
        "format=html": (200, "text/html; charset=utf-8"),
        "format=speedscope": (200, "application/json"),
        "format=text": (200, "text/plain; charset=utf-8"),
        "debug=1": (200, "text/plain; charset=utf-8"),
    }
    for answer in answers.values():
        assert "burn_cpu" in answer.text


def test_at_most_eight_captures_run_and_the_others_are_told_to_come_back(
    off: Server, side_by_side: ThreadPoolExecutor
) -> None:
    with ExitStack() as leaving:
        url = f"{off.url}/debug/pprof/cpu?seconds=80"
        asked = [leaving.enter_context(open_request(url, {"Connection": "close"})) for _ in range(40)]
        # Those that are refused need not wait for those that run.
        refused, answered = [], selectors.DefaultSelector()
        for connection in asked:
            answered.register(connection, selectors.EVENT_READ)
        while len(refused) < len(asked) - AT_ONCE:
            for key, _ in answered.select(20) or pytest.fail(f"{len(refused)} are refused"):
                answered.unregister(key.fileobj)
                refused.append(receive_all(key.fileobj).lower())
        assert {answer.partition(b"\r\n")[0] for answer in refused} == {b"http/1.1 429 too many requests"}
        assert [answer for answer in refused if b"\r\nretry-after: 10\r\n" not in answer] == []
        assert off.get("/debug/pprof/?format=json").json()["running_captures"] == AT_ONCE
        assert answered.select(0) == []
    eventually(lambda: off.profiling_threads() == [], "all threads end")
    answers = list(side_by_side.map(lambda _: off.get("/debug/pprof/cpu?seconds=2"), range(AT_ONCE)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.headers["X-Profile-Capture-Id"] for answer in answers}) == AT_ONCE
    assert all(read_pprof(answer.body).seconds == pytest.approx(2, abs=0.5) for answer in answers)


def test_a_client_that_leaves_frees_its_place(off: Server) -> None:
    with waiting_clients(f"{off.url}/debug/pprof/cpu?seconds=60", AT_ONCE):
        assert off.get("/debug/pprof/cpu?seconds=0.1").status == 429
        assert off.profiling_threads() != []
    eventually(lambda: off.get("/debug/pprof/cpu?seconds=0.1").status == 200, "a place is free", seconds=5)
    eventually(lambda: off.profiling_threads() == [], "all threads end", seconds=5)


def test_two_requests_on_one_connection(off: Server) -> None:
    """A client that does not wait for the first answer before it asks again has not left."""
    with open_request(f"{off.url}/debug/pprof/cpu?seconds=0.3") as connection:
        connection.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = receive_all(connection)
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.endswith(b"hello")


def test_the_index_and_the_command_line(off: Server) -> None:
    index = off.get("/debug/pprof/")
    assert (index.status, index.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert off.facts()["Periodic windows"] == "off (PROFILE_ENABLED)"
    assert off.get("/debug/pprof").headers["Location"] == "/debug/pprof/"
    assert "uvicorn" in off.get("/debug/pprof/cmdline").text.split("\0")
