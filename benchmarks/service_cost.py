"""What profiling all the time costs a service: CPU of a request and the slowest answers, with it against without.

`python -m benchmarks.service_cost [--profilers auto,…] [--slices 320] [--slices-of-others N] [--seconds 2] [--rate 100]
[--load 120] [--without /hot,/report] [--pinned] [--kinds cpu+wall]`. A profiler is an engine of this project, a peer by
its name in benchmarks.truth, or `burner 0.05`, which is known to cost 5 % of a core and has to be found. `--kinds
nothing` captures nothing at all: what it finds is the error of the method.

The sample app runs in one process and gets the same requests in every slice, from this process on 127.0.0.1. Slices
come in twos, off, off, on, on and then on, on, off, off, and before each two there is load for some seconds that is not
measured: so both sides have had as much of it, and what the machine does besides is in both. (When only "on" had that,
a request with nothing captured cost 1.007 and took 1.036 times as long.) With an engine of this project requests are
labelled in the one, and pass the middleware as if it were off in the other. What a service pays once a window is not in
a slice: opening and closing the capture, told apart, and the capture's first seconds, in which every function's name is
learnt.

With `--pinned` a yardstick (service/yardstick.py) runs on the service's core, and what a request costs is also told as
a multiple of the yardstick's pieces in the same slice: that is the figure to go by on a shared machine, if the
yardstick takes as long with the profiler as without. If it does not, neither figure is more than a bound. It comes in
between 50 times a second; `--without-yardstick` leaves the core to the service, as a service has it, and takes more
slices for as much.

What a peer leaves in the process when it is switched off (patched modules) is in both sides. pyinstrument and py-spy
are not measured: the one has to be started on the event loop's own thread, the other is another process.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from benchmarks.bootstrap import bootstrap
from benchmarks.pairs import machine
from benchmarks.service.handle import PINNED_CORE, Service
from benchmarks.service.yardstick import Yardstick
from profiling_middleware.config import ENGINES
from sample_app.load import DEFAULT_MIX, run_load

_SETTLE_SECONDS = 0.05
# What was noted is fetched every two seconds at the latest.
_FIRST_SECONDS = 2.2
# As a periodic window announces itself: how often a capture looks depends on how long it will be.
_WINDOW_SECONDS = 120.0
_SLICES_AT_ONCE = 4
_LONGEST_PAUSE_SECONDS = 4.0
_RESAMPLES = 300


class Slice(NamedTuple):
    """One load on the service."""

    cpu_ms: float
    """CPU time of the process, all its threads, for each request."""
    latencies: tuple[float, ...]
    """Seconds, of the requests that were answered."""
    failures: int
    piece_ms: float = 1.0
    """CPU time of the yardstick's piece meanwhile."""


class Pair(NamedTuple):
    """The two slices that are compared."""

    on: Slice
    off: Slice
    window_ms: float
    """CPU time of opening and closing the capture."""


def main() -> None:
    """Every profiler in a process of its own."""
    options = _parser().parse_args()
    slices = [options.slices, options.slices_of_others or options.slices]
    print(
        f"on against off: {slices[0]} slices of {options.seconds:g} s at {options.load:g} requests/s, "
        f"{slices[1]} of all but {options.profilers[0]}{', pinned' if options.pinned else ''}; {machine()}",
        flush=True,
    )
    if options.pinned:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {PINNED_CORE})
    for number, profiler in enumerate(options.profilers):
        engine = profiler if profiler in ENGINES else None
        name = f"capture {options.kinds}" if engine else profiler
        with ExitStack() as stack:
            service = stack.enter_context(Service(serve=True, rate=options.rate, engine=engine, pinned=options.pinned))
            measures = options.pinned and not options.without_yardstick
            yardstick = stack.enter_context(Yardstick(PINNED_CORE)) if measures else None
            bench = _Bench(service, yardstick, options)
            bench.pairs(name)  # now everything is loaded, and off
            measured: list[Pair] = []
            for _ in range(math.ceil(slices[number > 0] / _SLICES_AT_ONCE)):
                measured += bench.pairs(name)
        _report(f"{engine} {options.kinds}" if engine else profiler, measured, by_yardstick=measures)


class _Bench:
    """One service that is measured."""

    def __init__(self, service: Service, yardstick: Yardstick | None, options: argparse.Namespace) -> None:
        self._service, self._yardstick, self._options = service, yardstick, options
        self._mix = {path: weight for path, weight in DEFAULT_MIX.items() if path not in options.without}
        self._on_first = False

    def pairs(self, name: str) -> tuple[Pair, Pair]:
        """Two slices with it and two without; which come first changes from one time to the next."""
        # What the machine does besides every so many seconds must not fall on the same one of the slices each time.
        self.slice(random.uniform(0.1, _LONGEST_PAUSE_SECONDS))
        off = () if self._on_first else self._two_slices()
        on, window_ms = self._with(name)
        off = off or self._two_slices()
        self._on_first = not self._on_first
        return Pair(on[0], off[1], window_ms), Pair(on[1], off[0], window_ms)

    def _with(self, name: str) -> tuple[tuple[Slice, Slice], float]:
        """Two slices with it, and the CPU time of opening and closing the capture in milliseconds."""
        service = self._service
        began = service.cpu_ns()
        service.on(name, _WINDOW_SECONDS if name.startswith("capture") else _FIRST_SECONDS + 3 * self._options.seconds)
        opened = service.cpu_ns()
        on = self._two_slices()
        ended = service.cpu_ns()
        service.off(name)
        return on, (opened - began + service.cpu_ns() - ended) / 1e6

    def _two_slices(self) -> tuple[Slice, Slice]:
        self.slice(_FIRST_SECONDS)
        return self.slice(self._options.seconds), self.slice(self._options.seconds)

    def slice(self, seconds: float) -> Slice:
        """One load."""
        time.sleep(_SETTLE_SECONDS)
        before, read = self._service.cpu_ns(), self._yardstick.read() if self._yardstick else None
        result = asyncio.run(run_load(self._service.url, rate=self._options.load, seconds=seconds, mix=self._mix))
        used = self._service.cpu_ns() - before
        piece_ms = self._yardstick.read().piece_ms(read) if self._yardstick and read else 1.0
        latencies = tuple(seconds for path in result.paths for seconds in path.latencies)
        return Slice(used / 1e6 / max(result.requests, 1), latencies, result.failures + result.skipped, piece_ms)


def cpu_ratio(pairs: Sequence[Pair]) -> float:
    """CPU time of a request, on by off: the median over the pairs."""
    return statistics.median(pair.on.cpu_ms / pair.off.cpu_ms for pair in pairs)


def cpu_ratio_by_yardstick(pairs: Sequence[Pair]) -> float:
    """Likewise, each in pieces of the yardstick."""
    return statistics.median(
        (pair.on.cpu_ms / pair.on.piece_ms) / (pair.off.cpu_ms / pair.off.piece_ms) for pair in pairs
    )


def yardstick_ratio(pairs: Sequence[Pair]) -> float:
    """CPU time of the yardstick's piece, on by off: 1, unless what is measured makes the core slower or faster."""
    return statistics.median(pair.on.piece_ms / pair.off.piece_ms for pair in pairs)


def latency_ratio(pairs: Sequence[Pair], share: float) -> float:
    """The latency that this share of all answers did not exceed, on by off."""
    on, off = ([seconds for pair in pairs for seconds in side(pair).latencies] for side in (_on, _off))
    return _percentile(on, share) / _percentile(off, share)


def _on(pair: Pair) -> Slice:
    return pair.on


def _off(pair: Pair) -> Slice:
    return pair.off


def _percentile(values: list[float], share: float) -> float:
    values.sort()
    return values[max(0, math.ceil(share * len(values)) - 1)]


def _report(name: str, pairs: Sequence[Pair], *, by_yardstick: bool) -> None:
    cpu = bootstrap(pairs, cpu_ratio)
    off = statistics.median(pair.off.cpu_ms for pair in pairs)
    requests = sum(len(pair.on.latencies) for pair in pairs)
    failures = sum(pair.on.failures + pair.off.failures for pair in pairs)
    print(f"{name}: {requests} requests each way, {failures} failed or not sent; ratios (95 % interval)")
    print(f"  CPU of a request {cpu.text()}, {off:.2f} ms without")
    if by_yardstick:
        yardstick = bootstrap(pairs, yardstick_ratio).text()
        print(f"  by the yardstick {bootstrap(pairs, cpu_ratio_by_yardstick).text()}, which itself took {yardstick}")
    for share in (0.5, 0.99):
        ratio = bootstrap(pairs, partial(latency_ratio, share=share), resamples=_RESAMPLES)
        print(f"  p{100 * share:.0f} of latency   {ratio.text()}")
    window = statistics.median(pair.window_ms for pair in pairs)
    print(f"  opening and closing one capture: {window:.1f} ms of CPU, not in the above", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service_cost", description="What a service pays.")
    parser.add_argument("--profilers", type=lambda text: text.split(","), default=["auto"])
    parser.add_argument("--slices", type=int, default=320, help="with and without, together")
    parser.add_argument("--slices-of-others", type=int, help="of all profilers but the first; as many if not given")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a slice")
    parser.add_argument("--rate", type=int, default=100, help="samples a second")
    parser.add_argument("--load", type=float, default=120.0, help="requests a second")
    parser.add_argument("--without", type=lambda text: text.split(","), default=[], help="paths that are not asked for")
    parser.add_argument("--pinned", action="store_true", help="the service has a core of its own, and no other")
    parser.add_argument("--without-yardstick", action="store_true", help="with --pinned: it is left out")
    parser.add_argument(
        "--kinds", default="cpu+wall", help="what an engine of this project captures; trace-full: everything"
    )
    return parser


if __name__ == "__main__":
    main()
