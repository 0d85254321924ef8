"""What a lock that nobody waits for costs while locks are observed, against one that is not, and what making one does.

`python -m benchmarks.uncontended [--turns 300] [--engine auto]`. Turns with and without alternate in one process. The
portable engine measures only locks that are made meanwhile: with every engine the observed lock is such a one.
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
from profiling_middleware.config import ENGINES, Settings
from profiling_middleware.instruments.asyncio_locks import AsyncioLocks
from profiling_middleware.sampling import make_engine
from profiling_middleware.sampling.engine import EngineReport

_TIMES = 20_000


def main() -> None:
    """Locks of threads, then asyncio's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uncontended", description=__doc__)
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--engine", choices=ENGINES, default="auto")
    options = parser.parse_args()
    turns = options.turns
    print(f"ns each time, and the ratio: median [10 % 90 %] of {turns} turns; {machine()}")
    engine, collector = make_engine(Settings(engine=options.engine)), Collector(8.0, EngineReport())
    observe, leave = partial(engine.attach, collector), partial(engine.detach, collector)
    for name in ("Lock", "RLock"):
        # By its name at the time: the portable engine puts something else there.
        _report(f"threading.{name}", turns, partial(_with_new, name), observe, leave)
        _report("  to make one", turns, partial(_making, name), observe, leave)
    instrument = AsyncioLocks()

    def take_all() -> float:
        return asyncio.run(_async_with(asyncio.Lock()))

    _report(
        "asyncio.Lock", turns, take_all, partial(instrument.attach, collector), partial(instrument.detach, collector)
    )


def _with_new(name: str) -> float:
    return _with(getattr(threading, name)())


def _making(name: str) -> float:
    make = getattr(threading, name)
    began = time.perf_counter_ns()
    for _ in range(_TIMES // 10):
        make()
    return (time.perf_counter_ns() - began) / (_TIMES // 10)


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
