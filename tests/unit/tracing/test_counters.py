"""Counters of this very process."""

from __future__ import annotations

import asyncio
import mmap
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from tracing_kit import MS, routed, spin

from profiling_middleware.trace_events import COUNTERS
from profiling_middleware.tracing import counters as counters_module
from profiling_middleware.tracing.buffer import TraceBuffer
from profiling_middleware.tracing.counters import Counters
from profiling_middleware.tracing.requests import RequestSpans

LINUX = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no Linux")


@pytest.fixture
def spans() -> RequestSpans:
    spans = RequestSpans()
    spans.start(TraceBuffer())
    return spans


@pytest.fixture
def counters(spans: RequestSpans) -> Iterator[Counters]:
    counters = Counters(spans)
    counters.start()
    yield counters
    counters.stop()


def values(counters: Counters) -> dict[str, float]:
    """By name; all are known, read once, and at about the same time."""
    before = time.monotonic_ns()
    read = list(counters.read())
    after = time.monotonic_ns()
    assert {name for name, _, _ in read} <= set(COUNTERS)
    assert all(before <= time_ns <= after for _, time_ns, _ in read)
    assert len({name for name, _, _ in read}) == len(read)
    return {name: value for name, _, value in read}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def in_thread(deadline: float, work: Any) -> Any:
    """What `work` returns in a thread that has ended by then."""
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(deadline)
    return done.result(deadline)


def test_cpu_is_that_of_the_whole_process_since_the_last_time(counters: Counters) -> None:
    def readings() -> tuple[int, int]:
        return time.process_time_ns(), time.monotonic_ns()

    before = readings()
    counters.start()
    for pause in (0, 0.1):
        since = readings()
        spin(20 * MS)
        threading.Event().wait(pause)
        until = readings()
        used = values(counters)["cpu"]
        after = readings()
        assert 100 * (until[0] - since[0]) / (after[1] - before[1]) <= used
        assert used <= 100 * (after[0] - before[0]) / (until[1] - since[1])
        before = until


def test_cpu_of_no_time_is_not_told(counters: Counters, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    counters.start()
    assert "cpu" not in {name for name, _, _ in counters.read()}


@LINUX
def test_memory_is_what_is_resident(counters: Counters) -> None:
    before = values(counters)["rss"]
    reserved = mmap.mmap(-1, 512 << 20)  # it takes no room until it is used
    memory = bytearray(64 << 20)
    memory[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(memory[:: os.sysconf("SC_PAGE_SIZE")])
    after = values(counters)["rss"]
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    reserved.close()
    assert 60 << 20 <= after - before <= 80 << 20
    assert after == pytest.approx(int(line.split()[1]) * 1024, rel=0.1)


def test_what_there_is_is_counted(counters: Counters, spans: RequestSpans, deadline: float) -> None:
    before = values(counters)
    assert before["requests"] == 0
    requests = [spans.begin(routed, {}) for _ in range(3)]
    end = threading.Event()
    threads = [threading.Thread(target=end.wait, args=(deadline,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    after = values(counters)
    end.set()
    for thread in threads:
        thread.join(deadline)
    assert (after["requests"], after["threads"] - before["threads"]) == (3, 4)
    spans.end(requests[0])
    assert values(counters)["requests"] == 2
    assert "loop_lag" not in after


def test_a_loop_that_is_blocked_lags(counters: Counters) -> None:
    """This thread is its own, and reads instead of answering."""

    async def main() -> list[dict[str, float]]:
        first = values(counters)
        spin(3 * MS)
        return [first, values(counters)]

    first, then = asyncio.run(main())
    assert "loop_lag" not in first
    assert then["loop_lag"] >= 3 * MS
    assert first["tasks"] == then["tasks"] >= 1


def test_the_gil_is_waited_for_while_another_thread_works(counters: Counters, deadline: float) -> None:
    """If it comes to run meanwhile, it keeps it for a switch interval, 5 ms."""
    stop, busy = threading.Event(), threading.Event()

    def work() -> None:
        busy.set()
        while not stop.is_set():
            sum(range(100))

    thread = threading.Thread(target=work)
    alone = sorted(values(counters)["gil_wait"] for _ in range(9))
    thread.start()
    assert busy.wait(deadline)
    waited = any(values(counters)["gil_wait"] > 2 * MS for _ in range(500))
    stop.set()
    thread.join(deadline)
    assert 0 <= alone[4] < 2 * MS
    assert waited


@LINUX
def test_another_thread_may_go_on_reading(spans: RequestSpans, deadline: float) -> None:
    """The timer's thread ends before a fork and is another one afterwards."""
    counters = Counters(spans)
    before = descriptors()
    in_thread(deadline, counters.start)
    for _ in range(3):
        read = in_thread(deadline, lambda: values(counters))
        assert {"rss", "threads", "gil_wait"} <= set(read)
    assert values(counters)["gil_wait"] >= 0
    assert descriptors() == before + 2
    counters.stop()
    counters.stop()
    assert descriptors() == before


def test_what_is_not_to_be_had_is_left_out(spans: RequestSpans, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems without /proc."""

    def refuses(path: str) -> int:
        raise FileNotFoundError(path)

    monkeypatch.setattr(counters_module, "open_to_read", refuses)
    counters = Counters(spans)
    counters.start()
    spin(1)
    assert set(values(counters)) == {"cpu", "requests", "threads", "tasks", "gil_wait"}
    counters.stop()
