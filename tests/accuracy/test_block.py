"""Waits for anything but locks: how long, on which line, and why."""

from __future__ import annotations

import inspect
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from profiling_middleware.captures.collector import Collector, Sums
from profiling_middleware.config import Settings
from profiling_middleware.sampling import make_engine
from profiling_middleware.sampling.engine import Engine, EngineReport

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="why threads wait is known on Linux only")

# Each turn a wait moves to another line, and up to one look's time of it with it.
SECONDS, TURNS, LOOKS_A_SECOND = 3.0, 6, 50.0
DEADLINE = 60.0

Work = Callable[[], None]


class Truth:
    """What each work has waited, by its own clock."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = {}

    def wait(self, name: str, wait: Callable[[], object]) -> None:
        began = time.monotonic_ns()
        wait()
        self.ns[name] = self.ns.get(name, 0) + time.monotonic_ns() - began


@pytest.fixture(params=["native", "polling", "python"])
def engine(request: pytest.FixtureRequest, need_native: Callable[[], None]) -> Iterator[Engine]:
    if request.param != "python":
        need_native()
    engine = make_engine(Settings(engine=request.param, max_overhead=1.0))
    yield engine
    engine.close()


def sleeps() -> None:
    for _ in range(TURNS):
        time.sleep(SECONDS / TURNS)


def receives() -> None:
    near, far = socket.socketpair()

    def answer_slowly() -> None:
        for _ in range(TURNS):
            time.sleep(SECONDS / TURNS)
            far.send(b"x")

    peer = threading.Thread(target=answer_slowly, name="peer")
    peer.start()
    with near, far:
        for turn in range(TURNS):
            if turn % 2:
                near.recv(1)
            else:
                os.read(near.fileno(), 1)
        peer.join()


def is_busy(path: Path) -> Work:
    def waits_for_the_database() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("create table things (name text)")
            other.execute("begin exclusive")
            late = closing(sqlite3.connect(path, timeout=SECONDS))
            with late as connection, pytest.raises(sqlite3.OperationalError):
                connection.execute("insert into things values ('one')")

    return waits_for_the_database


def waits_for_a_process() -> None:
    # Without a timeout: with one, subprocess asks again and again.
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({SECONDS})"]).wait()


def reads_slowly(path: Path) -> Work:
    os.mkfifo(path)

    def write_slowly() -> None:
        with path.open("wb", buffering=0) as file:
            for _ in range(TURNS):
                time.sleep(SECONDS / TURNS)
                file.write(b"x")

    def reads_a_fifo() -> None:
        writer = threading.Thread(target=write_slowly, name="writer")
        writer.start()
        with path.open("rb", buffering=0) as file:
            for _ in range(TURNS):
                file.read(1)
        writer.join()

    return reads_a_fifo


def run(engine: Engine, *works: Work) -> tuple[Collector, Truth]:
    collector, truth = Collector(LOOKS_A_SECOND, EngineReport()), Truth()
    engine.attach(collector)
    threads = [threading.Thread(target=truth.wait, args=(work.__name__, work)) for work in works]
    for thread in threads:
        thread.start()
    give_up = time.monotonic() + DEADLINE
    while any(thread.is_alive() for thread in threads):
        assert time.monotonic() < give_up
        time.sleep(min(0.1, engine.look()))
    engine.detach(collector)
    return collector, truth


def delays(sums: Sums, function: str) -> dict[tuple[str, int], float]:
    """By the `wait` label and the line of the function."""
    found: dict[tuple[str, int], float] = {}
    for (frames, labels), (_, delay_ns) in sums.items():
        line = next((frame.line for frame in frames if frame.function.endswith(function)), None)
        if line is not None:
            kind = next(str(label.value) for label in labels if label.key == "wait")
            found[kind, line] = found.get((kind, line), 0) + delay_ns
    return found


def line_of(function: Work, text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def test_each_wait_is_on_its_line_with_its_reason(engine: Engine, tmp_path: Path) -> None:
    busy, slow = is_busy(tmp_path / "things.db"), reads_slowly(tmp_path / "fifo")
    works = {
        sleeps: ("sleep", "time.sleep("),
        receives: ("network", ".recv(1)", "os.read("),
        busy: ("sleep", "connection.execute("),  # SQLite sleeps and tries again
        waits_for_a_process: ("subprocess", ".wait()"),
        slow: ("file", "file.read(1)"),
    }
    collector, truth = run(engine, *works)

    block = collector.collected().block
    for work, (kind, *texts) in works.items():
        found = delays(block, f".{work.__name__}")
        expected = truth.ns[work.__name__]
        for text in texts:
            delay = found[kind, line_of(work, text)]
            assert delay == pytest.approx(expected / len(texts), rel=0.05, abs=0.1e9), (work, found)
        assert sum(found.values()) == pytest.approx(expected, rel=0.05, abs=0.1e9), (work, found)
