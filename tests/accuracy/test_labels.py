"""Labels: each sample has the endpoint it was taken in, however the requests take turns."""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import flask
import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from profiling_middleware.config import Settings
from profiling_middleware.labels import CURRENT, end_work
from profiling_middleware.middleware.asgi import ProfilingMiddleware
from profiling_middleware.middleware.wsgi import WSGIProfilingMiddleware
from profiling_middleware.model import Label, Sample
from profiling_middleware.sampling import make_label_maker
from profiling_middleware.sampling.engine import Engine
from profiling_middleware.threads import wait_until_gone

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the native engine is Linux's")

CHEAP, DEAR = "/cheap/{id:int}", "/dear/{id:int}"
STEPS, STEP_SECONDS = 5, 0.001

RUN = {"asyncio": asyncio.run, "uvloop": uvloop.run}


class Truth:
    """CPU time (ns) that each endpoint has used, by the clock of the thread that worked."""

    def __init__(self) -> None:
        self.used = {CHEAP: 0, DEAR: 0}

    def burn(self, endpoint: str, seconds: float) -> None:
        before = time.thread_time_ns()
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            sum(range(200))
        self.used[endpoint] += time.thread_time_ns() - before


def cheap_step(truth: Truth) -> None:
    truth.burn(CHEAP, STEP_SECONDS)


def dear_step(truth: Truth) -> None:
    truth.burn(DEAR, 3 * STEP_SECONDS)


OF = {"cheap_step": CHEAP, "dear_step": DEAR}


class Heard:
    wait_looks, hears_work, hears_waits, wait_moments_ns = 0.0, True, False, 0

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def receive(self, samples: Any) -> None:
        self.samples += samples

    def cpu(self, *, thread: int | None = None, function: str = "") -> list[tuple[str | None, int]]:
        """Endpoint (None: no label) and CPU time of the samples of a thread in which a function works."""
        return [
            (next((str(label.value) for label in sample.labels if label.key == "endpoint"), None), sample.cpu_ns)
            for sample in self.samples
            if sample.cpu_ns
            and thread in (None, sample.thread.native_id)
            and any(frame.function.endswith(function) for frame in sample.stack.frames)
        ]


def service(truth: Truth, engine: str) -> Any:
    """Two endpoints, whose requests take turns at each await, behind the middleware as it is once the profiler runs."""

    async def cheap(request: Request) -> PlainTextResponse:
        for _ in range(STEPS):
            cheap_step(truth)
            await asyncio.sleep(0)
        return PlainTextResponse("cheap")

    async def dear(request: Request) -> PlainTextResponse:
        for _ in range(STEPS):
            dear_step(truth)
            await asyncio.sleep(0)
        return PlainTextResponse("dear")

    async def cheap_in_thread(request: Request) -> PlainTextResponse:
        await asyncio.to_thread(cheap_step, truth)
        return PlainTextResponse("cheap")

    async def dear_in_thread(request: Request) -> PlainTextResponse:
        await asyncio.to_thread(dear_step, truth)
        return PlainTextResponse("dear")

    app = ProfilingMiddleware(
        Starlette(
            routes=[
                Route(CHEAP, cheap),
                Route(DEAR, dear),
                Route("/thread" + CHEAP, cheap_in_thread),
                Route("/thread" + DEAR, dear_in_thread),
            ]
        ),
        settings=Settings(service_name="labels"),
    )
    app._look_for, app._started = "", True
    app._service.label_maker = make_label_maker(Settings(engine=engine))  # type: ignore[arg-type]
    return app


async def ask(app: Any, path: str) -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200

    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "query_string": b"", "headers": []}
    await app(scope, receive, send)


class Served:
    """What was heard while an event loop served, beside a thread that works for nobody."""

    def __init__(
        self, engine: Engine, run: Callable[..., object], serve: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self.heard, self.nobodys_id = Heard(), 0
        self._end = threading.Event()
        done = threading.Event()
        failures: list[BaseException] = []

        def loop() -> None:
            try:
                run(serve())
            except BaseException as error:
                failures.append(error)
            done.set()

        threads = [threading.Thread(target=loop, name="loop"), threading.Thread(target=self._nobodys_work)]
        engine.attach(self.heard)
        for thread in threads:
            thread.start()
        while not done.wait(min(0.2, engine.look())):
            pass
        self._end.set()
        for thread in threads:
            thread.join()
        engine.look()
        engine.detach(self.heard)
        assert failures == []

    def _nobodys_work(self) -> None:
        self.nobodys_id = threading.get_native_id()
        while not self._end.wait(0.01):
            until = time.thread_time() + 0.001
            while time.thread_time() < until:
                pass


def wrong(heard: Heard) -> list[tuple[str, str | None]]:
    """Samples in which a function of one endpoint is labelled with anything but that."""
    return [
        (name, found)
        for name, endpoint in OF.items()
        for found, _ in heard.cpu(function=f".{name}")
        if found is None or not found.endswith(endpoint)
    ]


@pytest.mark.parametrize(("engine", "loop"), [("native", "asyncio"), ("native", "uvloop"), ("polling", "asyncio")])
def test_concurrent_requests_have_the_shares_that_they_used(
    engine: str, loop: str, open_camera: Callable[..., Any]
) -> None:
    camera, truth = open_camera(engine, sample_rate=1000), Truth()
    app = service(truth, engine)

    async def serve() -> None:
        paths = itertools.cycle([CHEAP, DEAR])
        await asyncio.gather(*(ask(app, next(paths).replace("{id:int}", str(number))) for number in range(100)))

    served = Served(camera.engine, RUN[loop], serve)
    heard = served.heard
    labelled = [(endpoint, cpu) for endpoint, cpu in heard.cpu() if endpoint is not None]
    total = sum(cpu for _, cpu in labelled)
    true_share = truth.used[DEAR] / sum(truth.used.values())
    measured = sum(cpu for endpoint, cpu in labelled if endpoint == DEAR) / total

    assert {endpoint for endpoint, _ in labelled} <= {CHEAP, DEAR}
    assert wrong(heard) == []
    assert {endpoint for endpoint, _ in heard.cpu(thread=served.nobodys_id)} <= {None}
    assert total >= 0.9 * sum(truth.used.values())
    # Four standard deviations of as many samples: chance alone does not reach it.
    weights = sum(cpu * cpu for _, cpu in labelled) / total**2
    assert measured == pytest.approx(true_share, abs=0.03 + 4 * math.sqrt(true_share * (1 - true_share) * weights))


@pytest.mark.parametrize("engine", ["native", "polling"])
def test_flasks_requests_have_their_rules(
    engine: str, open_camera: Callable[..., Any], make_worker: Callable[..., Any]
) -> None:
    """Flask lets go of its request before the server has the answer, and samples are looked at later."""
    camera, worker, truth = open_camera(engine), make_worker(), Truth()
    app = flask.Flask("shop")
    rules = {"/cheap/<int:number>": 0.01, "/dear/<int:number>": 0.03}
    truth.used = dict.fromkeys(rules, 0)
    for path, seconds in rules.items():

        def serve(number: int, path: str = path, seconds: float = seconds) -> str:
            truth.burn(path, seconds)
            return "done"

        app.add_url_rule(path, endpoint=path, view_func=serve)
    middleware = WSGIProfilingMiddleware(app.wsgi_app, settings=Settings())
    middleware._look_for = ""
    middleware._service.label_maker = make_label_maker(Settings(engine=engine))  # type: ignore[arg-type]
    app.wsgi_app = middleware  # type: ignore[method-assign]

    def requests() -> None:
        client = app.test_client()
        for number in range(40):
            for kind in ("cheap", "dear"):
                client.get(f"/{kind}/{number}", buffered=True).close()

    capture = camera.begin("cpu")
    worker.tell(requests)
    camera.look_until(worker.wait)
    taken = camera.end(capture)

    burnt: dict[object, int] = dict.fromkeys((None, *truth.used), 0)
    for sample in taken.profile.samples:
        if any(frame.function.endswith(".burn") for frame in sample.stack.frames):
            endpoint = next((label.value for label in sample.labels if label.key == "endpoint"), None)
            burnt[endpoint] += sample.values[1]
    total = sum(truth.used.values())
    assert burnt[None] == 0
    for path, used in truth.used.items():
        assert burnt[path] / total == pytest.approx(used / total, abs=0.05)


def test_work_in_another_thread_for_a_request_is_the_requests(open_camera: Callable[..., Any]) -> None:
    camera, truth = open_camera("native", sample_rate=1000), Truth()
    app = service(truth, "native")
    pools: set[int] = set()

    def nobodys_work() -> None:
        pools.add(threading.get_native_id())
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass

    async def serve() -> None:
        asked = [f"/thread{path.replace('{id:int}', str(number))}" for number in range(50) for path in (CHEAP, DEAR)]
        await asyncio.gather(*(ask(app, path) for path in asked))
        # The pool's threads work for nobody now.
        for _ in range(5):
            await asyncio.get_running_loop().run_in_executor(None, nobodys_work)

    served = Served(camera.engine, asyncio.run, serve)
    heard = served.heard

    assert wrong(heard) == []
    assert {endpoint for endpoint, _ in heard.cpu(function=".nobodys_work")} == {None}
    assert {endpoint for endpoint, _ in heard.cpu() if endpoint} == {"/thread" + CHEAP, "/thread" + DEAR}
    assert sum(cpu for endpoint, cpu in heard.cpu() if endpoint) >= 0.8 * sum(truth.used.values())


@pytest.mark.parametrize(
    ("engine", "kind"), [("native", "cpu"), ("polling", "cpu"), ("native", "wall")], ids=lambda value: value
)
def test_a_request_that_has_ended_before_the_profiler_asks_keeps_its_label(
    engine: str, kind: str, open_camera: Callable[..., Any], make_worker: Callable[..., Any]
) -> None:
    """Most requests are over when what was seen of them gets its names."""
    camera, worker, truth = open_camera(engine), make_worker(), Truth()
    make = make_label_maker(Settings(engine=engine))  # type: ignore[arg-type]
    labels = (Label("endpoint", CHEAP),)
    assert make is not None

    def requests() -> None:
        for _ in range(50):
            token = CURRENT.set(make(lambda subject: labels, None))
            if kind == "wall":
                time.sleep(0.02)
            else:
                truth.burn(CHEAP, 0.02)
            end_work(token)

    capture = camera.begin(kind)
    worker.tell(requests)
    camera.look_until(worker.wait)
    taken = camera.end(capture)

    labelled = sum(sample.values[1] for sample in taken.profile.samples if labels[0] in sample.labels)
    # A thread that waits is looked at 20 times a second, so not every short wait is seen where it is.
    least = 0.9 * truth.used[CHEAP] if kind == "cpu" else 0.5 * 50 * 20_000_000
    assert labelled >= least


@pytest.mark.parametrize("engine", ["native", "polling"])
def test_a_thread_that_ends_with_its_request_ends_no_capture(
    engine: str, open_camera: Callable[..., Any], make_worker: Callable[..., Any]
) -> None:
    """As servers do that start a thread for each; what is labelled is a dictionary, and has no hash."""
    camera, truth = open_camera(engine), Truth()
    make = make_label_maker(Settings(engine=engine))  # type: ignore[arg-type]
    labels = (Label("endpoint", CHEAP),)
    assert make is not None

    def request() -> None:
        CURRENT.set(make(lambda environ: labels, {"PATH_INFO": "/cheap/1"}))
        truth.burn(CHEAP, 0.05)

    def serve() -> None:
        for _ in range(5):
            thread = threading.Thread(target=request)
            thread.start()
            wait_until_gone(thread, 30)
            camera.engine.look()

    capture = camera.begin("cpu")
    serve()
    time.sleep(1.01)  # the ended are forgotten once a second
    camera.engine.look()
    taken = camera.end(capture)

    assert taken.total(None, ".burn") >= 0.6 * truth.used[CHEAP]
