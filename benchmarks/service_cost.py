"""What profiling all the time costs a service: CPU of a request and the slowest answers, with it against without.

`python -m benchmarks.service_cost [--profilers auto,…] [--slices 320] [--seconds 1] [--rate 100] [--load 40]
[--kinds cpu+wall]`. A profiler is an engine of this project, a peer by its name in benchmarks.truth, or `burner 0.05`,
which is known to cost 5 % of a core and has to be found.

The sample app runs in one process and gets the same requests in every slice, from this process on 127.0.0.1. Slices
come in pairs, one with profiling and one without, in random order; compared are the two of a pair, so that what the
machine does besides is in both. With an engine of this project the one goes through a middleware that is on, which
labels requests, the other through one that is off. A slice begins when the capture has begun and ends with the last
answer. What opening and closing a capture costs, which a service pays once a window, is told apart.

What a peer leaves in the process when it is switched off (patched modules) is in both sides. pyinstrument and py-spy
are not measured: the one has to be started on the event loop's own thread, the other is another process.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from benchmarks.bootstrap import bootstrap
from benchmarks.pairs import machine
from benchmarks.service.handle import Service
from profiling_middleware.config import ENGINES
from sample_app.load import run_load

_SETTLE_SECONDS = 0.05
_MARGIN_SECONDS = 2.0
_WARM_UP_SLICES = 3
_RESAMPLES = 1_000


class Slice(NamedTuple):
    """One load on the service."""

    cpu_ms: float
    """CPU time of the process, all its threads, for each request."""
    latencies: tuple[float, ...]
    """Seconds, of the requests that were answered."""
    failures: int


class Pair(NamedTuple):
    """The two slices that are compared."""

    on: Slice
    off: Slice
    window_ms: float
    """CPU time of opening and closing the capture."""


def main() -> None:
    """Every profiler in a process of its own."""
    options = _parser().parse_args()
    pairs = math.ceil(options.slices / 2)
    slices = f"{pairs} pairs of slices of {options.seconds:g} s at {options.load:g} requests/s"
    print(f"on against off: {slices}; {machine()}")
    for profiler in options.profilers:
        engine = profiler if profiler in ENGINES else None
        name = f"capture {options.kinds}" if engine else profiler
        with Service(serve=True, rate=options.rate, engine=engine) as service:
            for _ in range(_WARM_UP_SLICES):
                _slice(service, options)
            generator = random.Random(0)
            measured = [_pair(service, name, options, on_first=generator.random() < 0.5) for _ in range(pairs)]
        _report(f"{engine} {options.kinds}" if engine else profiler, measured)


def _pair(service: Service, name: str, options: argparse.Namespace, *, on_first: bool) -> Pair:
    before = None if on_first else _slice(service, options)
    began = service.cpu_ns()
    service.on(name, options.seconds + _MARGIN_SECONDS)
    opened = service.cpu_ns()
    on = _slice(service, options)
    ended = service.cpu_ns()
    service.off(name)
    closed = service.cpu_ns()
    after = _slice(service, options) if before is None else before
    return Pair(on, after, (opened - began + closed - ended) / 1e6)


def _slice(service: Service, options: argparse.Namespace) -> Slice:
    time.sleep(_SETTLE_SECONDS)
    before = service.cpu_ns()
    result = asyncio.run(run_load(service.url, rate=options.load, seconds=options.seconds))
    used = service.cpu_ns() - before
    latencies = tuple(seconds for path in result.paths for seconds in path.latencies)
    return Slice(used / 1e6 / max(result.requests, 1), latencies, result.failures + result.skipped)


def cpu_ratio(pairs: Sequence[Pair]) -> float:
    """CPU time of a request, on by off: the median over the pairs."""
    return statistics.median(pair.on.cpu_ms / pair.off.cpu_ms for pair in pairs)


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


def _report(name: str, pairs: Sequence[Pair]) -> None:
    cpu = bootstrap(pairs, cpu_ratio)
    off = statistics.median(pair.off.cpu_ms for pair in pairs)
    requests = sum(len(pair.on.latencies) for pair in pairs)
    failures = sum(pair.on.failures + pair.off.failures for pair in pairs)
    print(f"{name}: {requests} requests each way, {failures} failed or not sent; ratios (95 % interval)")
    print(f"  CPU of a request {cpu.text()}, {off:.2f} ms without")
    for share in (0.5, 0.99):
        ratio = bootstrap(pairs, partial(latency_ratio, share=share), resamples=_RESAMPLES)
        print(f"  p{100 * share:.0f} of latency   {ratio.text()}")
    window = statistics.median(pair.window_ms for pair in pairs)
    print(f"  opening and closing one capture: {window:.1f} ms of CPU, not in the above", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service_cost", description="What a service pays.")
    parser.add_argument("--profilers", type=lambda text: text.split(","), default=["auto"])
    parser.add_argument("--slices", type=int, default=320, help="with and without, together")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a slice")
    parser.add_argument("--rate", type=int, default=100, help="samples a second")
    parser.add_argument("--load", type=float, default=40.0, help="requests a second")
    parser.add_argument("--kinds", default="cpu+wall", help="what an engine of this project captures")
    return parser


if __name__ == "__main__":
    main()
