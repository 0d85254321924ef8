"""Profiling switched on and off over HTTP in a running service, and its state for people and programs."""

from __future__ import annotations

from typing import Any

import pytest
from integration_kit.buckets import Bucket, Key
from integration_kit.http import Answer, bearer
from integration_kit.servers import Server, Servers
from integration_kit.waiting import eventually
from prometheus_client.parser import text_string_to_metric_families

pytestmark = [pytest.mark.server, pytest.mark.s3]

TOKEN = "tell-nobody"


def ask(server: Server, path: str, method: str = "GET") -> Answer:
    answer = server.get(f"/debug/pprof/{path}", method=method, headers=bearer(TOKEN))
    assert TOKEN not in answer.text
    return answer


def state(server: Server) -> Any:
    return ask(server, "?format=json").json()


def metrics(server: Server) -> dict[str, float]:
    families = text_string_to_metric_families(ask(server, "metrics").text)
    return {sample.name: sample.value for family in families for sample in family.samples}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_running_service_is_switched_on_and_off_again(servers: Servers, bucket: Bucket, loop: str) -> None:
    settings = bucket.settings(PROFILE_TOKEN=TOKEN, PROFILE_TYPES="cpu,block,trace")
    server = servers.uvicorn(settings, loop=loop)
    assert server.get("/debug/pprof/enable", method="POST").status == 401
    assert state(server)["enabled"] is False
    assert bucket.list_keys() == []

    on = ask(server, "enable", "POST").json()
    assert (on["enabled"], on["running_captures"], on["instance"] in on["acted_on"]) == (True, 3, True)
    assert server.get("/burn?seconds=0.3").status == 200
    assert metrics(server)["profiling_enabled"] == 1
    assert metrics(server)["profiling_own_cpu_seconds_total"] > 0

    off = ask(server, "disable", "POST").json()
    assert (off["enabled"], off["running_captures"], off["next_window_seconds"]) == (False, 0, None)
    keys = bucket.wait_for_keys(3)
    assert [Key.parse(key).kind for key in keys] == ["block", "cpu", "trace"]
    cpu = bucket.profile(keys[1])
    assert cpu.partial == "profiling was switched off"
    assert cpu.leaves.most_common(1)[0][0] == "profiled_asgi.burn_cpu"

    eventually(lambda: server.profiling_threads() == [], "its threads are gone")
    stored = state(server)
    assert sorted(upload["key"] for upload in stored["last_uploads"]) == keys
    assert {upload["bytes"] for upload in stored["last_uploads"]} == {len(bucket.body(key)) for key in keys}
    assert stored["waiting"]["captures"] == 0
    assert metrics(server)["profiling_uploads_stored_total"] == 3
    assert keys[1] in ask(server, "").text
    server.terminate()
    assert bucket.list_keys() == keys


def test_what_was_switched_on_stores_its_last_window_when_the_service_ends(servers: Servers, bucket: Bucket) -> None:
    server = servers.uvicorn(bucket.settings(PROFILE_TOKEN=TOKEN, PROFILE_TYPES="cpu"))
    assert ask(server, "enable", "POST").status == 200

    server.terminate()

    (key,) = bucket.list_keys()
    assert bucket.profile(key).partial is not None


@pytest.mark.parametrize("options", [("--worker-class", "sync"), ("--worker-class", "gthread", "--threads", "4")])
def test_a_worker_of_gunicorn_is_switched_and_ends_in_order(
    servers: Servers, bucket: Bucket, options: tuple[str, ...]
) -> None:
    server = servers.gunicorn(bucket.settings(PROFILE_TOKEN=TOKEN, PROFILE_TYPES="cpu"), *options)
    assert ask(server, "enable", "POST").json()["running_captures"] == 1
    assert metrics(server)["profiling_captures_running"] == 1
    assert ask(server, "disable", "POST").json()["running_captures"] == 0
    assert bucket.profile(bucket.wait_for_keys(1)[0]).partial == "profiling was switched off"
    assert ask(server, "enable", "POST").json()["running_captures"] == 1

    server.terminate()

    assert len(bucket.list_keys()) == 2
