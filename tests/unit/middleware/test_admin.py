"""The routes under /debug/pprof/, with a real profiler behind them."""

from __future__ import annotations

import gzip
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiling_middleware.config import Settings
from profiling_middleware.limits import UPLOADS_AN_HOUR, Limits
from profiling_middleware.middleware.admin import Admin, Pending
from profiling_middleware.middleware.messages import AdminRequest, AdminResponse, Awaited
from profiling_middleware.middleware.service import ProfilerService
from profiling_middleware.profiler import Profiler
from profiling_middleware.recorder import MAX_ON_DEMAND
from profiling_middleware.recording import CaptureCancelled

MakeRequest = Callable[..., AdminRequest]


@pytest.fixture
def settings(tmp_path: Path, logger: Any) -> Settings:
    return Settings(environment="dev", service_name="watcher", store=(tmp_path / "store").as_uri())


@pytest.fixture
def profiler(settings: Settings) -> Iterator[Profiler]:
    profiler = Profiler(settings)
    yield profiler
    profiler.stop()


@pytest.fixture
def admin(settings: Settings, profiler: Profiler) -> Admin:
    return Admin(settings, lambda: profiler)


@pytest.fixture
def storeless() -> Iterator[Admin]:
    """With nowhere to put captures: nothing is enabled and no store was named."""
    settings = Settings(environment="dev")
    profiler = Profiler(settings)
    yield Admin(settings, lambda: profiler)
    profiler.stop()


def response(answer: AdminResponse | Awaited, deadline: float = 10) -> AdminResponse:
    """The answer, once its capture has ended."""
    if isinstance(answer, AdminResponse):
        return answer
    answer.result.exception(deadline)
    try:
        return answer.response()
    finally:
        answer.close()


def pending(answer: AdminResponse | Awaited) -> Pending:
    assert isinstance(answer, Pending), answer
    return answer


def wait_until_settled(capture: Pending, deadline: float) -> None:
    """Returns when all that is to happen at its end has happened."""
    settled = threading.Event()
    capture.result.add_done_callback(lambda _: settled.set())
    assert settled.wait(deadline)


def stored(settings: Settings) -> dict[str, bytes]:
    root = settings.directory
    assert root is not None
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.gz")}


# -- routes -----------------------------------------------------------------------------------------------------------


def test_the_index_shows_what_can_be_captured_and_how_the_profiler_is_doing(
    admin: Admin, profiler: Profiler, settings: Settings, make_request: MakeRequest
) -> None:
    answer = response(admin.answer(make_request(path="/debug/pprof/")))

    page = answer.body.decode()
    assert (answer.status, answer.media_type) == (200, "text/html; charset=utf-8")
    for shown in ('href="cpu?seconds=30"', 'href="wall?seconds=30"', "cmdline", profiler.instance, settings.store):
        assert shown in page


def test_the_index_is_json_for_programs(
    admin: Admin, profiler: Profiler, settings: Settings, make_request: MakeRequest
) -> None:
    answer = response(admin.answer(make_request(path="/debug/pprof/", query="format=json")))

    state = json.loads(answer.body)
    assert (answer.status, answer.media_type) == (200, "application/json")
    assert dict(answer.headers)["X-Profile-Instance"] == state["instance"] == profiler.instance
    assert (state["enabled"], state["uploads"]["store"]) == (False, settings.store)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("format=xml", "format = 'xml' is unknown: choose from html, json"),
        ("seconds=1", "'seconds' is no parameter here: choose from format"),
    ],
)
def test_a_bad_parameter_of_the_index_is_400(admin: Admin, make_request: MakeRequest, query: str, message: str) -> None:
    answer = response(admin.answer(make_request(path="/debug/pprof/", query=query)))

    assert (answer.status, answer.body) == (400, f"profiling: {message}\n".encode())


def test_the_path_without_its_slash_leads_to_the_index(admin: Admin, make_request: MakeRequest) -> None:
    answer = response(admin.answer(make_request(path="/debug/pprof", root="/shop")))

    assert answer.status == 308
    assert dict(answer.headers)["Location"] == "/shop/debug/pprof/"


def test_the_redirect_can_be_sent_whatever_stands_before_the_path(admin: Admin, make_request: MakeRequest) -> None:
    answer = response(admin.answer(make_request(path="/debug/pprof", root="/\u30b7\u30e7\u30c3\u30d7")))

    assert dict(answer.headers)["Location"].isascii()


def test_cmdline_is_the_command_line_with_zero_bytes_between(
    admin: Admin, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "shop", "--db-password=hunter2", "--port", "80"])
    answer = response(admin.answer(make_request(path="/debug/pprof/cmdline")))

    assert (answer.status, answer.body) == (200, b"python3\0-m\0shop\0--db-password=<redacted>\0--port\x0080")
    assert answer.media_type == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "name", ["heap", "goroutine", "CPU", "cpu/", "cpu.pprof", "../cpu", "/cpu", "%63pu", "\u00e9", "index.html"]
)
def test_an_unknown_profile_is_404_and_says_what_there_is(admin: Admin, make_request: MakeRequest, name: str) -> None:
    answer = response(admin.answer(make_request(path=f"/debug/pprof/{name}")))

    assert answer.status == 404
    assert (
        answer.body
        == b"profiling: there is no such profile: there are block, cpu, mutex, trace, wall, profile, cmdline, metrics\n"
    )
    assert ("X-Go-Pprof", "1") in answer.headers


def test_the_last_seconds_are_refused_where_none_are_kept(admin: Admin, make_request: MakeRequest) -> None:
    answer = response(admin.answer(make_request(path="/debug/pprof/trace", query="last=10")))

    assert answer.status == 409
    assert isinstance(answer.body, bytes)
    assert answer.body.startswith(b"profiling: last = 10: no trace is recorded all the time: set PROFILE_ENABLED")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"])
@pytest.mark.parametrize("path", ["/debug/pprof", "/debug/pprof/", "/debug/pprof/cpu", "/debug/pprof/metrics"])
def test_every_method_but_get_is_405(admin: Admin, make_request: MakeRequest, method: str, path: str) -> None:
    answer = response(admin.answer(make_request(method=method, path=path)))

    assert answer.status == 405
    assert ("Allow", "GET") in answer.headers
    assert answer.body == f"profiling: {method} is not allowed: use GET\n".encode()


@pytest.mark.parametrize("path", ["", "/", "/cpu", "/cmdline", "/heap", "/metrics", "/enable", "/disable"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_one_who_may_not_learns_nothing_and_causes_no_work(
    settings: Settings, make_request: MakeRequest, path: str, method: str
) -> None:
    def never() -> Profiler:
        raise AssertionError("a stranger caused work")

    admin = Admin(settings, never)

    answer = response(admin.answer(make_request(path=f"/debug/pprof{path}", method=method, peer="10.0.0.1")))

    assert answer.status == 403


# -- captures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("cpu", "cpu"), ("profile", "cpu"), ("wall", "wall")])
def test_a_capture_is_answered_with_its_gzipped_profile(
    admin: Admin, make_request: MakeRequest, name: str, kind: str
) -> None:
    answer = response(admin.answer(make_request(path=f"/debug/pprof/{name}", query="seconds=0.05")))

    headers = dict(answer.all_headers())
    assert (answer.status, answer.media_type) == (200, "application/octet-stream")
    assert headers["Content-Disposition"] == f'attachment; filename="{kind}.pprof.gz"'
    assert headers["Content-Length"] == str(len(answer.body))
    assert f"({kind}, on demand, window of ".encode() in gzip.decompress(answer.body)


def test_the_headers_say_key_upload_instance_and_capture(
    admin: Admin, profiler: Profiler, settings: Settings, make_request: MakeRequest
) -> None:
    answer = response(admin.answer(make_request(query="seconds=0.05")))
    headers = dict(answer.headers)
    profiler.stop()

    assert headers["X-Profile-Upload"] == "queued"
    assert stored(settings) == {headers["X-Profile-Key"]: answer.body}
    assert f"{headers['X-Profile-Instance']}-{headers['X-Profile-Capture-Id']}.pprof.gz" in headers["X-Profile-Key"]
    assert headers["X-Profile-Key"].startswith("profiles/watcher/cpu/")


def test_upload_0_keeps_a_capture_out_of_the_store(
    admin: Admin, profiler: Profiler, settings: Settings, make_request: MakeRequest
) -> None:
    answer = response(admin.answer(make_request(query="seconds=0.05&upload=0")))
    profiler.stop()

    assert answer.status == 200
    assert dict(answer.headers)["X-Profile-Upload"] == "off"
    assert "X-Profile-Key" not in dict(answer.headers)
    assert stored(settings) == {}


def test_without_a_store_the_capture_is_answered_and_nothing_is_uploaded(
    storeless: Admin, make_request: MakeRequest
) -> None:
    answer = response(storeless.answer(make_request(query="seconds=0.05")))

    assert answer.status == 200
    assert dict(answer.headers)["X-Profile-Upload"] == "off"
    assert "X-Profile-Key" not in dict(answer.headers)


@pytest.mark.parametrize(
    ("query", "media_type", "begin"),
    [
        ("format=html", "text/html; charset=utf-8", b"<!DOCTYPE html>"),
        ("format=text", "text/plain; charset=utf-8", b"profiling_middleware "),
        ("debug=1", "text/plain; charset=utf-8", b"profiling_middleware "),
        ("format=speedscope", "application/json", b'{"$schema"'),
    ],
)
def test_a_view_is_answered_while_the_profile_is_stored(
    admin: Admin,
    profiler: Profiler,
    settings: Settings,
    make_request: MakeRequest,
    query: str,
    media_type: str,
    begin: bytes,
) -> None:
    answer = response(admin.answer(make_request(query=f"seconds=0.05&{query}")))
    profiler.stop()

    assert (answer.status, answer.media_type) == (200, media_type)
    assert answer.body.startswith(begin)
    assert "Content-Disposition" not in dict(answer.headers)
    assert list(stored(settings)) == [dict(answer.headers)["X-Profile-Key"]]


def test_a_capture_shows_what_the_service_did_meanwhile(admin: Admin, make_request: MakeRequest) -> None:
    stop = threading.Event()

    def the_work_of_the_service() -> None:
        while not stop.is_set():
            sum(range(1000))

    worker = threading.Thread(target=the_work_of_the_service, name="worker-7")
    worker.start()
    try:
        answer = response(admin.answer(make_request(query="seconds=0.3&format=speedscope")))
    finally:
        stop.set()
        worker.join()

    names = [frame["name"] for frame in json.loads(answer.body)["shared"]["frames"]]
    assert "thread worker-7" in names
    assert any(name.endswith("the_work_of_the_service") for name in names)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("seconds=abc", "seconds = 'abc' is not such a number: use a number of seconds, more than 0 and at most 300 "),
        ("seconds=301", "seconds = '301' is out of range: use a number of seconds, more than 0 and at most 300 "),
        ("format=svg", "format = 'svg' is unknown: choose from pprof, html, speedscope, text"),
        ("debug=2", "debug = '2' is unknown: choose from 0, 1"),
        ("upload=yes", "upload = 'yes' is unknown: choose from 0, 1"),
        ("wait=no", "wait = 'no' is unknown: choose from 0, 1"),
        ("minutes=1", "'minutes' is no parameter here: choose from seconds, format, debug, upload, wait"),
    ],
)
def test_a_bad_parameter_is_400_by_name_value_and_remedy(
    admin: Admin, make_request: MakeRequest, query: str, message: str
) -> None:
    answer = response(admin.answer(make_request(query=query)))

    assert answer.status == 400
    assert answer.body.decode().startswith(f"profiling: {message}")
    assert ("X-Go-Pprof", "1") in answer.headers


def test_the_longest_capture_is_what_the_settings_say(make_request: MakeRequest) -> None:
    settings = Settings(environment="dev", max_seconds=10)
    profiler = Profiler(settings)

    answer = response(Admin(settings, lambda: profiler).answer(make_request(query="seconds=11")))

    assert (answer.status, b"at most 10 (PROFILE_MAX_SECONDS)" in answer.body) == (400, True)


@pytest.mark.parametrize(("max_seconds", "seconds"), [(300, 30.0), (10, 10.0)])
def test_without_seconds_a_capture_takes_30_or_what_is_allowed(
    make_request: MakeRequest, deadline: float, max_seconds: int, seconds: float
) -> None:
    settings = Settings(environment="dev", max_seconds=max_seconds)
    profiler = Profiler(settings)

    answer = pending(Admin(settings, lambda: profiler).answer(make_request()))

    assert answer.recording.seconds == seconds
    answer.cancel()
    assert isinstance(answer.result.exception(deadline), CaptureCancelled)
    profiler.stop()


# -- wait=0, and servers that do one thing at a time ------------------------------------------------------------------


def test_wait_0_answers_at_once_with_the_key_of_a_capture_that_is_stored(
    admin: Admin, profiler: Profiler, settings: Settings, make_request: MakeRequest
) -> None:
    answer = admin.answer(make_request(query="seconds=60&wait=0"))
    assert isinstance(answer, AdminResponse)
    profiler.stop()

    headers = dict(answer.headers)
    key = answer.body.decode().removesuffix("\n")
    assert (answer.status, headers["X-Profile-Upload"], headers["X-Profile-Key"]) == (202, "queued", key)
    assert list(stored(settings)) == [key]


def test_a_server_that_does_one_thing_at_a_time_answers_at_once(
    admin: Admin, profiler: Profiler, settings: Settings, make_request: MakeRequest
) -> None:
    answer = admin.answer(make_request(query="seconds=60", can_wait=False))
    assert isinstance(answer, AdminResponse)
    profiler.stop()

    assert answer.status == 202
    assert list(stored(settings)) == [answer.body.decode().strip()]


@pytest.mark.parametrize(
    ("query", "can_wait", "why"),
    [
        ("wait=0", True, b"wait = 0 needs a store"),
        ("", False, b"this server does one thing at a time"),
    ],
)
def test_an_answer_at_once_needs_a_store(
    storeless: Admin, make_request: MakeRequest, query: str, can_wait: bool, why: bytes
) -> None:
    answer = response(storeless.answer(make_request(query=query, can_wait=can_wait)))

    assert answer.status == 409
    assert why in answer.body
    assert b"set PROFILE_S3_BUCKET or PROFILE_STORE" in answer.body


def test_a_server_that_does_one_thing_at_a_time_cannot_keep_a_capture_out_of_the_store(
    admin: Admin, make_request: MakeRequest
) -> None:
    answer = response(admin.answer(make_request(query="upload=0", can_wait=False)))

    assert (answer.status, b"no upload=0" in answer.body) == (409, True)


# -- bounds, failures, conflicts --------------------------------------------------------------------------------------


def test_the_ninth_capture_at_once_is_429_until_one_has_ended(
    admin: Admin, make_request: MakeRequest, deadline: float
) -> None:
    running = [pending(admin.answer(make_request(query="seconds=60"))) for _ in range(MAX_ON_DEMAND)]

    refused = response(admin.answer(make_request(query="seconds=60")))
    running[3].cancel()
    running[3].result.exception(deadline)
    instead = pending(admin.answer(make_request(query="seconds=60")))

    assert MAX_ON_DEMAND == 8
    assert refused.status == 429
    assert ("Retry-After", "10") in refused.headers
    assert refused.body == (
        b"profiling: 8 captures on demand run already or are being read: try again when one has ended\n"
    )
    for capture in (*running, instead):
        capture.cancel()


def test_captures_that_end_by_themselves_make_room(admin: Admin, make_request: MakeRequest, deadline: float) -> None:
    for _ in range(2):
        running = [pending(admin.answer(make_request(query="seconds=0.02"))) for _ in range(MAX_ON_DEMAND)]
        for capture in running:
            assert response(capture, deadline).status == 200


def test_a_client_that_reads_keeps_its_place_until_it_has_all(
    admin: Admin, profiler: Profiler, make_request: MakeRequest, deadline: float
) -> None:
    """Else one who reads nothing could have any number of answers kept for him."""
    read = [pending(admin.answer(make_request(query="seconds=0.02&upload=0"))) for _ in range(MAX_ON_DEMAND)]
    for capture in read:
        capture.result.exception(deadline)

    assert response(admin.answer(make_request(query="seconds=0.02&upload=0"))).status == 429
    read[0].close()
    assert response(admin.answer(make_request(query="seconds=0.02&upload=0"))).status == 200
    assert profiler.status.limits_met == {"captures at once": 1}


def test_the_ninth_that_does_not_wait_is_429_and_counted(
    admin: Admin, profiler: Profiler, make_request: MakeRequest
) -> None:
    for _ in range(MAX_ON_DEMAND):
        assert response(admin.answer(make_request(query="seconds=60&wait=0"))).status == 202

    for query in ("seconds=60&wait=0", *["seconds=60"] * MAX_ON_DEMAND):
        refused = response(admin.answer(make_request(query=query)))
        assert (refused.status, dict(refused.headers)["Retry-After"]) == (429, "10")
        assert refused.body == b"profiling: 8 captures on demand run already: try again when one has ended\n"

    assert profiler.status.limits_met == {"captures at once": 1 + MAX_ON_DEMAND}
    assert len(profiler.limits._uploads) == MAX_ON_DEMAND


def test_the_store_gets_so_many_an_hour_and_then_upload_0_is_wanted(
    admin: Admin, profiler: Profiler, make_request: MakeRequest, clock: Any
) -> None:
    profiler._parts.limits = Limits(clock)
    for _ in range(UPLOADS_AN_HOUR):
        profiler.limits.admit(waits=False, uploads=True)
    clock.now += 600.5

    for query in ("seconds=0.02", "seconds=0.02&wait=0", "seconds=0.02&format=text"):
        refused = response(admin.answer(make_request(query=query)))
        assert (refused.status, dict(refused.headers)["Retry-After"]) == (429, "3000")
        assert refused.body == (
            b"profiling: 120 captures on demand have gone to the store within an hour, which is the most: "
            b"upload=0 keeps one out of it, or try again later\n"
        )
    assert response(admin.answer(make_request(query="seconds=0.02&upload=0"))).status == 200
    clock.now += 3000
    assert response(admin.answer(make_request(query="seconds=0.02"))).status == 200
    assert profiler.status.limits_met == {"uploads an hour": 3}


def test_requests_count_for_the_hour_and_windows_and_what_is_not_stored_do_not(
    admin: Admin, profiler: Profiler, make_request: MakeRequest, clock: Any, deadline: float
) -> None:
    limits = profiler._parts.limits = Limits(clock)
    profiler.capture("cpu", 0.02)
    profiler._parts.periodic._open_window(0.0)
    response(admin.answer(make_request(query="seconds=0.02&upload=0")))
    left = pending(admin.answer(make_request(query="seconds=60")))
    left.cancel()
    wait_until_settled(left, deadline)
    assert len(limits._uploads) == 0

    response(admin.answer(make_request(query="seconds=0.02")))
    response(admin.answer(make_request(query="seconds=0.02&wait=0")))
    assert len(limits._uploads) == 2


@pytest.mark.parametrize(("query", "kept"), [("", True), ("&format=html", True), ("&upload=0", False)])
def test_what_is_too_big_for_a_client_is_413_and_says_where_it_lies(
    admin: Admin,
    profiler: Profiler,
    settings: Settings,
    make_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    kept: bool,
) -> None:
    monkeypatch.setattr("profiling_middleware.limits.RESPONSE_BYTES", 100)

    answer = response(admin.answer(make_request(query=f"seconds=0.02{query}")))

    assert answer.status == 413
    assert isinstance(answer.body, bytes)
    assert b"and 100 B is the most that is sent to a client: ask for fewer seconds" in answer.body
    assert (b"it goes to the store, see X-Profile-Key" in answer.body) == kept
    assert ("X-Profile-Key" in dict(answer.headers)) == kept
    assert profiler.status.limits_met == {"response size": 1}
    profiler.stop()
    assert len(stored(settings)) == kept


def test_a_capture_that_finds_the_queue_full_is_503_and_counted(
    admin: Admin, profiler: Profiler, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    monkeypatch.setattr(profiler._parts.pipeline._lane, "submit", lambda job: False)

    refused = pending(admin.answer(make_request(query="seconds=0.02")))
    wait_until_settled(refused, deadline)
    answer = response(refused)

    assert (answer.status, dict(answer.headers)["Retry-After"]) == (503, "10")
    assert answer.body == b"profiling: 64 captures wait to be encoded, which is the most: try again\n"
    assert profiler.status.limits_met == {"captures waiting": 1}
    assert profiler.status.failed_captures == 1
    assert len(profiler.limits._uploads) == 0


def test_a_capture_whose_client_has_left_keeps_nothing(
    admin: Admin, profiler: Profiler, settings: Settings, make_request: MakeRequest, deadline: float
) -> None:
    left = pending(admin.answer(make_request(query="seconds=60")))
    left.cancel()
    assert isinstance(left.result.exception(deadline), CaptureCancelled)
    profiler.stop()

    assert stored(settings) == {}


def test_a_capture_that_fails_is_500_and_says_no_more_than_its_kind(
    admin: Admin, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise OSError("a secret path")

    monkeypatch.setattr("profiling_middleware.captures.sampled.SampledCapture.begin", broken)

    answer = response(admin.answer(make_request(query="seconds=0.02")))

    assert (answer.status, answer.body) == (500, b"profiling: the capture failed (OSError); the log says why\n")
    assert "a secret path" in caplog.text


@pytest.mark.parametrize("path", ["/debug/pprof/", "/debug/pprof/cpu"])
def test_where_another_profiler_lives_every_route_that_needs_one_is_409(make_request: MakeRequest, path: str) -> None:
    other = Profiler(Settings(environment="dev", sample_rate=50))
    service = ProfilerService(Settings(environment="dev", sample_rate=60))
    with other:
        answer = response(service.admin().answer(make_request(path=path)))

    assert answer.status == 409
    assert b"a Profiler with other settings" in answer.body


def test_where_another_profiler_lives_the_command_line_is_answered(make_request: MakeRequest) -> None:
    other = Profiler(Settings(environment="dev", sample_rate=50))
    service = ProfilerService(Settings(environment="dev", sample_rate=60))
    with other:
        answer = response(service.admin().answer(make_request(path="/debug/pprof/cmdline")))

    assert answer.status == 200


def test_whatever_breaks_inside_is_500_and_logged(
    settings: Settings, make_request: MakeRequest, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Profiler:
        raise ZeroDivisionError("a secret path")

    answer = response(Admin(settings, broken).answer(make_request(path="/debug/pprof/")))

    assert answer.status == 500
    assert b"ZeroDivisionError" in answer.body
    assert b"a secret path" not in answer.body
    assert "a secret path" in caplog.text


def test_the_routes_load_the_profiler_only_when_somebody_who_may_needs_it(
    settings: Settings, make_request: MakeRequest
) -> None:
    asked: list[str] = []

    def make() -> Profiler:
        asked.append("profiler")
        return Profiler(settings)

    admin = Admin(settings, make)
    for path in ("/debug/pprof", "/debug/pprof/cmdline", "/debug/pprof/heap", "/debug/pprof/cpu?seconds=x"):
        admin.answer(make_request(path=path))
    assert asked == []

    admin.answer(make_request(path="/debug/pprof/"))
    assert asked == ["profiler"]


# -- several workers --------------------------------------------------------------------------------------------------


UNHEARD = "1 of 1 (those that do not listen are not in it: PROFILE_ENABLED)"


@pytest.mark.parametrize(("query", "said"), [("workers=all", UNHEARD), (f"pid={os.getpid()}", "1 of 1")])
def test_a_capture_of_all_workers_says_whose_parts_are_in_it(
    admin: Admin, profiler: Profiler, settings: Settings, make_request: MakeRequest, query: str, said: str
) -> None:
    answer = response(admin.answer(make_request(query=f"seconds=0.05&{query}")))
    headers = dict(answer.headers)
    profiler.stop()

    assert (answer.status, headers["X-Profile-Workers"]) == (200, said)
    assert f"workers: {said}".encode() in gzip.decompress(answer.body)
    assert stored(settings) == {headers["X-Profile-Key"]: answer.body}  # once, and not the part as well


def test_stopped_a_worker_is_found_no_more(settings: Settings, tmp_path: Path, deadline: float) -> None:
    listening = threading.Event()
    profiler = Profiler(replace(settings, enabled=True, types=("cpu",), spool_dir=tmp_path / "spool"))
    with profiler:
        profiler._parts.workers._reactor.call_soon(listening.set)  # after what start() has asked of it
        assert listening.wait(deadline)
        found = sorted(path.suffix for path in tmp_path.glob("spool/*.workers/*"))

    assert found == [".json", ".sock"]
    assert list(tmp_path.glob("spool/*.workers/*")) == []


def test_with_profiling_off_no_thread_stays(admin: Admin, make_request: MakeRequest, deadline: float) -> None:
    assert response(admin.answer(make_request(query="seconds=0.05&workers=all&upload=0"))).status == 200
    assert response(admin.answer(make_request(path="/debug/pprof/"))).status == 200
    for thread in threading.enumerate():
        if thread.name.startswith("profiling-"):
            thread.join(deadline)

    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("profiling-")] == []


def test_a_worker_that_is_not_there_is_404_and_says_who_is(admin: Admin, make_request: MakeRequest) -> None:
    answer = response(admin.answer(make_request(query="pid=1&seconds=1")))

    assert answer.status == 404
    assert answer.body.decode().endswith(f"has pid 1: there are {os.getpid()}\n")


def test_if_no_worker_answers_that_is_502(admin: Admin, profiler: Profiler, make_request: MakeRequest) -> None:
    waiting = pending(admin.answer(make_request(query="workers=all&seconds=60")))
    waiting.recording._own.result.set_exception(ZeroDivisionError())  # type: ignore[union-attr]
    answer = response(waiting)

    assert answer.status == 502
    assert f"no worker has answered: 0 of 1 (missing: pid {os.getpid()}: failed" in answer.body.decode()


def test_a_server_that_does_one_thing_at_a_time_answers_at_once_for_all_workers_too(
    admin: Admin, storeless: Admin, make_request: MakeRequest, settings: Settings
) -> None:
    answer = admin.answer(make_request(query="workers=all&seconds=60", can_wait=False))

    assert isinstance(answer, AdminResponse)
    assert (answer.status, answer.body.decode().strip()) == (202, dict(answer.headers)["X-Profile-Key"])
    refused = response(storeless.answer(make_request(query="workers=all", can_wait=False)))
    assert refused.status == 409


def test_the_workers_directory_may_be_unusable(
    profiler: Profiler, settings: Settings, make_request: MakeRequest, tmp_path: Path
) -> None:
    (tmp_path / f"profiling_middleware-{os.geteuid()}").write_text("in the way")
    admin = Admin(settings, lambda: profiler)

    assert response(admin.answer(make_request(path="/debug/pprof/"))).status == 200
