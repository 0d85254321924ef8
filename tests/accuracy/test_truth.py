"""What a profile says beside what is so: the threads' own clocks, known lines, the process's CPU time.

Every bound holds on a busy machine, too: CPU time is compared with CPU time, and nothing waits for a moment.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="exact only with Linux's clocks")

MS = 1_000_000
SECOND = 1_000 * MS


def calculate(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(200))


def calculate_otherwise(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        max(range(200))


def encode(seconds: float) -> None:
    until = time.thread_time() + seconds
    document = {str(number): list(range(20)) for number in range(500)}
    while time.thread_time() < until:
        json.dumps(document)  # in C, with the GIL


def compress(seconds: float) -> None:
    until = time.thread_time() + seconds
    data = bytes(range(256)) * 2_000
    while time.thread_time() < until:
        zlib.compress(data)  # in C, without the GIL


def looker_clock() -> int:
    """CPU time of the thread that looks for the native engine, if there is one."""
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().strip() == "profiling-look":
            return time.clock_gettime_ns((~int(task.name) << 3) | 6)
    return 0


class Service:
    """One capture of many threads, and what their clocks say."""

    def __init__(self, camera: Any, make_worker: Callable[..., Any]) -> None:
        self.workers = {name: make_worker() for name in ("calculate", "encode", "compress", "sleep")}
        self.workers["unknown"] = make_worker(known_to_threading=False)
        before, own_before = time.process_time_ns(), time.thread_time_ns()
        capture = camera.begin("cpu")
        for work in (calculate, encode, compress):
            self.workers[work.__name__].tell(lambda work=work: work(1.0))
        self.workers["unknown"].tell(lambda: calculate_otherwise(1.0))
        self.workers["sleep"].tell(lambda: time.sleep(1.0))
        for number in range(60):
            brief = threading.Thread(target=calculate, args=(0.005,))
            brief.start()
            brief.join()
            if number % 10 == 0:
                camera.engine.look()
        for worker in self.workers.values():
            camera.look_until(worker.wait)
        looker_ns = looker_clock()
        self.taken = camera.end(capture)
        self.own_ns = time.thread_time_ns() - own_before
        self.most_own_ns = self.own_ns + looker_ns
        self.process_ns = time.process_time_ns() - before

    def measured(self, name: str, function: str = "", *, placed: bool = False) -> int:
        total: int = self.taken.total(self.workers[name].native_id, function, placed=placed)
        return total

    def true(self, name: str) -> int:
        used: int = self.workers[name].used_ns[0]
        return used


@pytest.fixture(scope="module")
def service(module_camera: Any, make_worker: Callable[..., Any]) -> Service:
    return Service(module_camera, make_worker)


@pytest.mark.parametrize("name", ["calculate", "encode", "compress", "unknown"])
def test_a_thread_has_the_cpu_time_of_its_own_clock(service: Service, name: str) -> None:
    assert service.true(name) >= 1 * SECOND
    assert service.measured(name) == pytest.approx(service.true(name), rel=0.02)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("calculate", ".calculate"),
        ("encode", ".encode"),
        ("compress", ".compress"),
        ("unknown", ".calculate_otherwise"),
    ],
)
def test_work_without_pauses_stands_under_its_function(service: Service, name: str, function: str) -> None:
    assert service.measured(name, function, placed=True) >= 0.9 * service.true(name)


def test_a_thread_that_sleeps_has_no_cpu_time(service: Service) -> None:
    assert service.measured("sleep") <= 2 * MS


def test_all_cpu_time_of_the_process_is_somewhere(service: Service) -> None:
    assert service.taken.total() == pytest.approx(service.process_ns, rel=0.02)


def test_the_cost_of_sampling_is_in_the_profile(service: Service) -> None:
    own = service.taken.total(None, "<profiling_middleware sampling>")

    # Beginning and ending are not in the window; what the looking thread did while it ended is.
    assert 0.5 * service.own_ns <= own <= service.most_own_ns + 2 * MS


def test_cpu_time_whose_function_nobody_saw_is_visible_and_said(
    open_camera: Callable[..., Any], make_worker: Callable[..., Any]
) -> None:
    camera, worker = open_camera("python"), make_worker()
    capture = camera.begin("cpu")
    # No look while it works, so none can know where.
    worker.do(lambda: calculate(0.1))
    camera.engine.look()
    ended = threading.Thread(target=calculate, args=(0.1,))
    ended.start()
    ended.join()
    taken = camera.end(capture)

    assert taken.total(worker.native_id, "<not seen running>") == pytest.approx(worker.used_ns[0], rel=0.02)
    assert taken.total(None, ".calculate") <= 2 * MS
    assert taken.not_placed >= 200 * MS
    said = [comment for comment in taken.profile.comments if comment.startswith("CPU not placed: ")]
    assert len(said) == 1
    assert float(said[0].split()[3]) * MS == pytest.approx(taken.not_placed, abs=0.1 * MS)


@pytest.mark.parametrize(("engine", "least"), [("native", 0.9), ("polling", 0.6)])
def test_the_native_engine_sees_work_while_nobody_calls_it(
    engine: str, least: float, open_camera: Callable[..., Any], make_worker: Callable[..., Any]
) -> None:
    """The thread that asks may wait for the GIL, or sleep: stacks are taken without it."""
    camera, worker = open_camera(engine), make_worker()
    capture = camera.begin("cpu")
    worker.do(lambda: calculate(0.4))
    taken = camera.end(capture)

    assert taken.total(worker.native_id, ".calculate", placed=True) >= least * worker.used_ns[0]
    assert taken.total(worker.native_id) == pytest.approx(worker.used_ns[0], rel=0.02)


def work_a_moment(used: list[int]) -> None:
    before = time.thread_time_ns()
    until = time.thread_time() + 0.003
    while time.thread_time() < until:
        sum(range(200))
    used.append(time.thread_time_ns() - before)


def rest_a_moment() -> None:
    time.sleep(0.007)


@pytest.mark.parametrize(
    ("engine", "least", "most_at_rest"), [("native", 0.97, 0.05), ("polling", 0.5, 0.25), ("python", 0.0, 0.25)]
)
def test_short_bursts_of_work_are_not_put_on_the_rests_between_them(
    engine: str,
    least: float,
    most_at_rest: float,
    open_camera: Callable[..., Any],
    make_worker: Callable[..., Any],
) -> None:
    """As most services work. What looks from outside comes when the burst is over, and sees the sleep."""
    camera, worker, used = open_camera(engine, sample_rate=1000), make_worker(), []

    def in_turn() -> None:
        for _ in range(150):
            work_a_moment(used)
            rest_a_moment()

    capture = camera.begin("cpu")
    worker.tell(in_turn)
    camera.look_until(worker.wait)
    taken = camera.end(capture)

    # The kernel looks at timers when it ticks: up to every 10 ms. Three samples may be elsewhere by chance.
    chance = 12 * MS
    assert taken.total(worker.native_id, ".work_a_moment", placed=True) >= least * sum(used) - chance
    assert taken.total(worker.native_id, ".rest_a_moment", placed=True) <= most_at_rest * worker.used_ns[0] + chance
    assert taken.total(worker.native_id) == pytest.approx(worker.used_ns[0], rel=0.02, abs=10 * MS)


def test_captures_at_once_say_the_same_and_a_later_one_only_its_part(
    camera: Any, make_worker: Callable[..., Any]
) -> None:
    worker = make_worker()
    one, same = camera.begin("cpu"), camera.begin("cpu")
    worker.tell(lambda: calculate(0.2))
    camera.look_until(worker.wait)
    worker.do(lambda: calculate(0.1))  # nobody looks before the next capture begins
    later = camera.begin("cpu")
    worker.tell(lambda: calculate_otherwise(0.2))
    camera.look_until(worker.wait)
    worker.do(lambda: calculate_otherwise(0.1))
    totals = [camera.end(capture) for capture in (one, same, later)]

    first, second = sum(worker.used_ns[:2]), sum(worker.used_ns[2:])
    of_one, of_same, of_later = (taken.total(worker.native_id) for taken in totals)
    assert of_one == pytest.approx(first + second, rel=0.02)
    assert of_same == pytest.approx(of_one, rel=0.001)
    assert of_later == pytest.approx(second, rel=0.02)
    assert totals[0].total(worker.native_id, ".calculate_otherwise") > 0
    assert totals[2].total(worker.native_id, "truth.calculate_otherwise") >= 0.5 * second


def test_a_step_of_the_systems_clock_changes_nothing(
    camera: Any, make_worker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker()
    began = time.monotonic_ns()
    cpu, wall = camera.begin("cpu"), camera.begin("wall")
    worker.tell(lambda: calculate(0.2))
    for hours in (-3, 0, 5):
        real = time.clock_gettime_ns
        stepped = lambda real=real, hours=hours: real(time.CLOCK_REALTIME) + hours * 3_600 * SECOND  # noqa: E731
        monkeypatch.setattr(time, "time_ns", stepped)
        monkeypatch.setattr(time, "time", lambda stepped=stepped: stepped() / SECOND)
        camera.engine.look()
        time.sleep(0.05)
    camera.look_until(worker.wait)
    of_cpu, of_wall = camera.end(cpu), camera.end(wall)
    passed = time.monotonic_ns() - began

    assert of_cpu.total(worker.native_id) == pytest.approx(worker.used_ns[0], rel=0.02)
    assert 150 * MS <= of_wall.total(worker.native_id) <= passed
    assert 150 * MS <= of_cpu.profile.duration_ns <= passed


def test_a_thread_that_gets_the_number_of_an_ended_one_is_another_thread(
    camera: Any, make_worker: Callable[..., Any]
) -> None:
    capture = camera.begin("cpu")
    before = make_worker()
    camera.engine.look()  # who has ended before anybody looked has no name
    before.tell(lambda: calculate(0.2))
    camera.look_until(before.wait)
    before.end()
    for _ in range(50):
        after = make_worker()
        if after.ident == before.ident:
            break
    else:
        pytest.skip("this C library gives no number twice")
    after.do(lambda: calculate_otherwise(0.1))  # nobody has looked at it yet
    after.tell(lambda: calculate_otherwise(0.2))
    camera.look_until(after.wait)
    taken = camera.end(capture)

    assert taken.total(before.native_id, ".calculate", placed=True) >= 0.5 * before.used_ns[0]
    assert taken.total(before.native_id, ".calculate_otherwise") == 0
    assert taken.total(before.native_id) <= 1.02 * before.used_ns[0] + 2 * MS
    assert taken.total(after.native_id) == pytest.approx(sum(after.used_ns), rel=0.02, abs=2 * MS)
    assert taken.total(after.native_id, ".calculate_otherwise", placed=True) >= 0.5 * after.used_ns[1]
