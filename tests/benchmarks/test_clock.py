"""The truth's clocks agree where both may be asked."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.truth.clock import Clock, TimeOnCore


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.skipif(
    not Path("/proc/thread-self/schedstat").exists(), reason="Linux writes down how long threads wait to run"
)
def test_time_on_the_core_is_cpu_time_for_who_never_waits() -> None:
    read = TimeOnCore()
    ours, cpu = Clock(1.0, read=read), Clock(1.0)
    for clock in (ours, cpu):
        clock.start()
    burn(0.2)
    ours.lap("burn")
    cpu.lap("burn")
    read.close()
    assert ours.pieces()["burn"].cpu_ns == pytest.approx(cpu.pieces()["burn"].cpu_ns, rel=0.05)
