"""How true the portable engine's CPU profile is, beside threads whose CPU time their own clocks say.

`python -m benchmarks.accuracy`: every kind of work alone, then all of them together beside threads that sleep, with
the usual share of a core for the profiler and without a limit, in turn.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.pairs import machine
from profiling_middleware.captures import CAPTURES
from profiling_middleware.config import Settings
from profiling_middleware.model import CaptureInfo, Profile
from profiling_middleware.sampling import make_engine

_TURNS = 3
_SECONDS = 4.0
_SHARES = (0.01, 1.0)
_DOCUMENT = {str(number): list(range(20)) for number in range(500)}
_DATA = bytes(range(256)) * 2_000


def main() -> None:
    print(f"medians of {_TURNS} turns of {_SECONDS:g} s; {machine()}")
    for work in WORKS:
        _measure(f"{work} alone", [work], sleepers=0)
    for sleepers in (0, 50, 400):
        _measure(f"all together, {sleepers} threads asleep", list(WORKS), sleepers)


def calculate(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(200))


def encode(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        json.dumps(_DOCUMENT)


def compress(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        zlib.compress(_DATA)


def _bursts(work: float, rest: float) -> Callable[[threading.Event], None]:
    def run(stop: threading.Event) -> None:
        while not stop.is_set():
            calculate(work)
            time.sleep(rest)

    return run


def _without_rest(work: Callable[[float], None]) -> Callable[[threading.Event], None]:
    def run(stop: threading.Event) -> None:
        while not stop.is_set():
            work(0.02)

    return run


class Work(NamedTuple):
    run: Callable[[threading.Event], None]
    function: str
    """Where its CPU time belongs."""


WORKS = {
    "Python": Work(_without_rest(calculate), ".calculate"),
    "C with the GIL": Work(_without_rest(encode), ".encode"),
    "C without it": Work(_without_rest(compress), ".compress"),
    "3 ms work, 7 asleep": Work(_bursts(0.003, 0.007), ".calculate"),
    "1 ms work, 20 asleep": Work(_bursts(0.001, 0.020), ".calculate"),
    "30 ms work, 20 asleep": Work(_bursts(0.030, 0.020), ".calculate"),
}


class Worker(threading.Thread):
    """Works between two moments; `used_ns` is what its own clock says of that."""

    def __init__(self, work: Work, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.work, self.stop = work, stop
        self.ready, self.go, self.done, self.leave = (threading.Event() for _ in range(4))
        self.used_ns = 0

    def run(self) -> None:
        self.ready.set()
        self.go.wait()
        before = time.thread_time_ns()
        self.work.run(self.stop)
        self.used_ns = time.thread_time_ns() - before
        self.done.set()
        self.leave.wait()


class Seen(NamedTuple):
    """Of one thread in one capture; shares of its true CPU time."""

    measured: float
    placed: float
    unplaced: float


class Turn(NamedTuple):
    threads: list[Seen]
    own: float
    looks: float


def _measure(title: str, names: Sequence[str], sleepers: int) -> None:
    leave = threading.Event()
    crowd = [threading.Thread(target=_sleep_deep, args=(leave, 20), daemon=True) for _ in range(sleepers)]
    for thread in crowd:
        thread.start()
    turns: dict[float, list[Turn]] = {share: [] for share in _SHARES}
    for number in range(_TURNS):
        for share in _SHARES if number % 2 else _SHARES[::-1]:
            turns[share].append(_turn(names, share))
    leave.set()
    for thread in crowd:
        thread.join()
    print(f"{title}:")
    for share, taken in turns.items():
        own, looks = (statistics.median(getattr(turn, field) for turn in taken) for field in ("own", "looks"))
        print(f"  at most {share:4.0%} of a core: own CPU {own:.2%} of a core, {looks:.0f} looks/s")
        for index, name in enumerate(names):
            measured, placed, unplaced = (
                statistics.median(turn.threads[index][field] for turn in taken) for field in range(3)
            )
            print(f"    {name:22} measured {measured:7.2%}, in its function {placed:6.1%}, unplaced {unplaced:6.1%}")


def _turn(names: Sequence[str], share: float) -> Turn:
    stop = threading.Event()
    workers = [Worker(WORKS[name], stop) for name in names]
    for worker in workers:
        worker.start()
        worker.ready.wait()
    engine = make_engine(Settings(engine="python", max_overhead=share))
    capture = CAPTURES["cpu"](engine)
    capture.begin()
    before, began = engine.report(), time.monotonic()
    for worker in workers:
        worker.go.set()
    while time.monotonic() < began + _SECONDS:
        time.sleep(engine.look())
    stop.set()
    for worker in workers:
        while not worker.done.wait(engine.look()):
            pass
    report, lasted = engine.report().since(before), time.monotonic() - began
    profile = capture.end(_info())
    engine.close()
    for worker in workers:
        worker.leave.set()
        worker.join()
    return Turn([_seen(profile, worker) for worker in workers], report.cpu_ns / 1e9 / lasted, report.looks / lasted)


def _seen(profile: Profile, worker: Worker) -> Seen:
    total = placed = unplaced = 0
    for sample in profile.samples:
        if any(label.key == "thread_id" and label.value == worker.native_id for label in sample.labels):
            nanoseconds = sample.values[1]
            total += nanoseconds
            if sample.stack.frames[0].function.startswith("<"):
                unplaced += nanoseconds
            elif any(frame.function.endswith(worker.work.function) for frame in sample.stack.frames):
                placed += nanoseconds
    true = max(worker.used_ns, 1)
    return Seen(total / true, placed / true, unplaced / true)


def _sleep_deep(leave: threading.Event, depth: int) -> None:
    if depth:
        _sleep_deep(leave, depth - 1)
    else:
        leave.wait()


def _info() -> CaptureInfo:
    return CaptureInfo(
        kind="cpu",
        service="accuracy",
        instance="here",
        capture_id="0123456789abcdef",
        started_ns=time.time_ns(),
        trigger="on demand",
    )


if __name__ == "__main__":
    main()
