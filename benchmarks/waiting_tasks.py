"""What looking at very many waiting tasks costs, and how right the shares are that come of it.

`python -m benchmarks.waiting_tasks [--tasks 10000] [--seconds 30] [--uvloop]`. Three await points hold the tasks 5:3:2.
A timer of 1 ms in the loop says what it notices, with and without, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks.pairs import machine
from profiling_middleware.captures.collector import Collector
from profiling_middleware.captures.wall import looks_a_second
from profiling_middleware.config import Settings
from profiling_middleware.instruments.asyncio_tasks import AsyncioTasks
from profiling_middleware.sampling import find_extension
from profiling_middleware.sampling.engine import EngineReport

_SHARES = {"five": 0.5, "three": 0.3, "two": 0.2}
_TICK_SECONDS = 0.001


def main() -> None:
    """One run of each after the other, then the shares."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting_tasks", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if options.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    print(f"{options.tasks} waiting tasks for {options.seconds:g} s, {factory.__module__}; {machine()}")
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_measure(options.tasks, options.seconds))


async def _measure(count: int, seconds: float) -> None:
    never = asyncio.Event()
    waits: dict[str, Callable[[asyncio.Event], Coroutine[Any, Any, None]]] = {"five": five, "three": three, "two": two}
    tasks = [
        asyncio.create_task(waits[name](never)) for name, share in _SHARES.items() for _ in range(int(count * share))
    ]
    await asyncio.sleep(0.5)
    instrument = AsyncioTasks(reader=find_extension(Settings()))
    collector = Collector(looks_a_second(seconds), EngineReport())
    off = await _delays(seconds)
    looker = Looker(instrument)
    instrument.attach(collector)
    looker.start()
    on = await _delays(seconds)
    looker.end()
    instrument.detach(collector)
    for name, delays in (("without", off), ("with", on)):
        cuts = statistics.quantiles(delays, n=1000)
        print(
            f"{name:8} a 1 ms timer is late by: median {cuts[499]:.2f}, 99 % {cuts[989]:.2f}, 99.9 % {cuts[998]:.2f} ms"
        )
    print(f"looks: {instrument.cost_ns / 1e9 / seconds:.3%} of a core; {looker.told()}")
    sums = dict.fromkeys(_SHARES, 0.0)
    for (frames, _), (_, delay) in collector.collected().block.items():
        for name in sums:
            if any(frame.function.endswith(f".{name}") for frame in frames):
                sums[name] += delay
    total = sum(sums.values())
    shares = ", ".join(f"{name} {value / total:.3f} (true {_SHARES[name]})" for name, value in sums.items())
    print(f"shares: {shares}; delay in all {total / 1e9 / (count * seconds):.3f} x the truth")
    for task in tasks:
        task.cancel()


class Looker(threading.Thread):
    """Looks until it is told to end, and keeps what each look has cost.

    Ten thousand tasks are also what a full garbage collection goes through, some 10 ms, whoever makes the object that
    is one too many: told apart, since it is then over for everyone.
    """

    def __init__(self, instrument: AsyncioTasks) -> None:
        super().__init__()
        self._instrument = instrument
        self._done = threading.Event()
        self._costs: list[int] = []
        self._collections: list[int] = []
        self._collected_ns = self._collection_began = 0

    def run(self) -> None:
        gc.callbacks.append(self._note)
        try:
            pause: float | None = 0.0
            while not self._done.wait(pause):
                began, self._collected_ns = time.thread_time_ns(), 0
                pause = self._instrument.look()
                self._costs.append(time.thread_time_ns() - began - self._collected_ns)
        finally:
            gc.callbacks.remove(self._note)

    def end(self) -> None:
        """Returns when the last look is over."""
        self._done.set()
        self.join()

    def told(self) -> str:
        """The figures, in words."""
        costs = sorted(self._costs)
        longest = ", ".join(f"{cost / 1e6:.2f}" for cost in costs[-3:])
        collections = f"; {len(self._collections)} collections in them" if self._collections else ""
        if self._collections:
            collections += f", not counted, the longest {max(self._collections) / 1e6:.2f} ms"
        return (
            f"{len(costs)} looks, median {statistics.median(costs) / 1e6:.2f} ms of CPU, the longest {longest}"
            + collections
        )

    def _note(self, phase: str, _: dict[str, int]) -> None:
        if threading.current_thread() is not self:
            return
        if phase == "start":
            self._collection_began = time.thread_time_ns()
        else:
            took = time.thread_time_ns() - self._collection_began
            self._collected_ns += took
            self._collections.append(took)


async def _delays(seconds: float) -> list[float]:
    """How many milliseconds too late each tick was."""
    late = []
    until = time.perf_counter() + seconds
    while (before := time.perf_counter()) < until:
        await asyncio.sleep(_TICK_SECONDS)
        late.append((time.perf_counter() - before - _TICK_SECONDS) * 1e3)
    return late


async def five(never: asyncio.Event) -> None:
    """Waits."""
    await never.wait()


async def three(never: asyncio.Event) -> None:
    """Waits."""
    await never.wait()


async def two(never: asyncio.Event) -> None:
    """Waits."""
    await never.wait()


if __name__ == "__main__":
    main()
