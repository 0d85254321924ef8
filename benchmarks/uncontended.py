"""What a lock that nobody waits for costs while locks are observed, against one that is not: `with lock:`.

`python -m benchmarks.uncontended [--turns 300]`. Turns with and without alternate in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.pairs import machine
from profiling_middleware.captures.collector import Collector
from profiling_middleware.config import Settings
from profiling_middleware.instruments.asyncio_locks import AsyncioLocks
from profiling_middleware.sampling import make_engine
from profiling_middleware.sampling.engine import EngineReport

_TIMES = 20_000


def main() -> None:
    """Locks of threads, then asyncio's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uncontended", description=__doc__)
    parser.add_argument("--turns", type=int, default=300)
    turns = parser.parse_args().turns
    print(f"ns each time, and the ratio: median [10 % 90 %] of {turns} turns; {machine()}")
    engine = make_engine(Settings())
    for name, lock in (("threading.Lock", threading.Lock()), ("threading.RLock", threading.RLock())):
        collector = Collector(8.0, EngineReport())

        def on(collector: Collector = collector) -> None:
            engine.attach(collector)

        def off(collector: Collector = collector) -> None:
            engine.detach(collector)

        _report(name, turns, partial(_with, lock), on, off)
    instrument, collector = AsyncioLocks(), Collector(8.0, EngineReport())
    alock = asyncio.Lock()

    def take_all() -> float:
        return asyncio.run(_async_with(alock))

    _report("asyncio.Lock", turns, take_all, lambda: instrument.attach(collector), lambda: instrument.detach(collector))


def _with(lock: Any) -> float:
    began = time.perf_counter_ns()
    for _ in range(_TIMES):
        with lock:
            pass
    return (time.perf_counter_ns() - began) / _TIMES


async def _async_with(lock: asyncio.Lock) -> float:
    began = time.perf_counter_ns()
    for _ in range(_TIMES):
        async with lock:
            pass
    return (time.perf_counter_ns() - began) / _TIMES


def _report(
    name: str, turns: int, take: Callable[[], float], on: Callable[[], object], off: Callable[[], object]
) -> None:
    plain, observed = [], []
    for _ in range(turns):
        plain.append(take())
        on()
        observed.append(take())
        off()
    ratios = [one / other for one, other in zip(observed, plain, strict=True)]
    low, *_, high = statistics.quantiles(ratios, n=10)
    print(
        f"{name:16} plain {statistics.median(plain):5.1f}, observed {statistics.median(observed):5.1f}; "
        f"ratio {statistics.median(ratios):.2f} [{low:.2f} {high:.2f}]"
    )


if __name__ == "__main__":
    main()
