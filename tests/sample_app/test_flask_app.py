"""The WSGI twin and the file that gunicorn reads."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from flask.testing import FlaskClient

import sample_app
from profiling_middleware import Settings
from sample_app import work
from sample_app.flask_app import create_app


@pytest.fixture
def client() -> FlaskClient:
    return create_app(Settings()).test_client()


def test_every_route_answers(client: FlaskClient) -> None:
    routes = client.get("/").get_json()["routes"]

    assert {"/hot", "/report", "/checkout", "/stream", "/health"} <= set(routes)
    assert {route: client.get(route).status_code for route in routes} == dict.fromkeys(routes, 200)


def test_it_does_the_same_work(client: FlaskClient) -> None:
    assert client.get("/report").get_json() == {"rows": work.REPORT_ROWS}
    assert client.get("/stream").text.splitlines()[0] == "order,cents"


def test_the_profiler_answers_on_its_own_routes() -> None:
    client = create_app(Settings(token="only-for-this-test")).test_client()

    assert client.get("/debug/pprof/cmdline").status_code == 401
    allowed = {"Authorization": "Bearer only-for-this-test"}
    assert client.get("/debug/pprof/cmdline", headers=allowed).status_code == 200


def test_gunicorn_starts_the_profiler_in_each_worker() -> None:
    file = Path(sample_app.__file__).with_name("gunicorn.conf.py")

    assert callable(runpy.run_path(str(file))["post_worker_init"])
