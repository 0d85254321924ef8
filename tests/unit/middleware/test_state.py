"""The state as JSON: these names are a promise."""

from __future__ import annotations

import json
from collections.abc import Callable

from profiling_middleware.middleware.state import state_response
from profiling_middleware.status import Status

MakeStatus = Callable[..., Status]


def test_every_name_and_value(make_status: MakeStatus) -> None:
    answer = state_response(make_status())

    assert (answer.status, answer.media_type) == (200, "application/json")
    assert answer.headers == (("X-Profile-Instance", "web-1-7-0a1b2c3d"),)
    assert json.loads(answer.body) == {
        "service": "checkout",
        "instance": "web-1-7-0a1b2c3d",
        "enabled": True,
        "kinds": ["cpu", "wall"],
        "interval_seconds": 300.0,
        "duration_seconds": 120.0,
        "next_window_seconds": 41.6,
        "missed_windows": 6,
        "running_captures": 2,
        "failed_captures": 5,
        "limits_met": {"captures at once": 2, "uploads an hour": 1},
        "engine": {
            "name": "python",
            "why_not_native": "the C extension was not built",
            "sampling_interval_seconds": 0.02,
            "own_cpu_seconds": 1.25,
            "own_cpu_share": 0.004,
            "max_own_cpu_share": 0.01,
        },
        "uploads": {
            "store": "s3://stl-debugging-prod",
            "taken": 7,
            "adopted": 1,
            "stored": 3,
            "stored_bytes": 49_357,
            "failed": 2,
            "lost": 1,
        },
        "waiting": {
            "captures": 4,
            "bytes": 2048,
            "place": "/var/spool/checkout",
            "spooled_captures": 3,
            "spooled_bytes": 1024,
            "spool_trouble": "No space left on device",
        },
        "last_uploads": [
            {"key": "the/last/key", "kind": "cpu", "bytes": 2048, "stored_at": "2026-01-26T15:30:00.250Z"}
        ],
        "last_failures": [
            {"what": "upload", "reason": "no network", "times": 2, "last_at": "2026-01-26T15:30:01.000Z"}
        ],
    }


def test_what_is_not_there_is_null() -> None:
    off = Status(service="s", instance="i", enabled=False, kinds=(), interval=300, duration=120, store="")

    state = json.loads(state_response(off).body)

    assert (state["next_window_seconds"], state["uploads"]["store"]) == (None, None)
    assert (state["engine"]["name"], state["engine"]["own_cpu_share"]) == (None, None)
    assert (state["last_uploads"], state["last_failures"]) == ([], [])


def test_an_answer_to_a_change_says_whose_state_it_is(make_status: MakeStatus) -> None:
    assert "acted_on" not in json.loads(state_response(make_status()).body)
    assert json.loads(state_response(make_status(), acted_on="this one").body)["acted_on"] == "this one"
