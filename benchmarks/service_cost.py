"""What profiling all the time costs a service: CPU of a request and the slowest answers, with it against without.

`python -m benchmarks.service_cost [--profilers auto,…] [--slices 240] [--slices-of-others N] [--seconds 2] [--rate 100]
[--load 60] [--without /hot,/report] [--pinned] [--kinds cpu+wall]`. A profiler is an engine of this project, a peer by
its name in benchmarks.truth, or `burner 0.05`, which is known to cost 5 % of a core and has to be found. `--kinds
nothing` captures nothing at all: what it finds is the error of the method.

The sample app runs in two processes, which get the same requests at the same time from this process on 127.0.0.1: one
is profiled and the other is not, and then the other way round. A ratio is that of both ways together: what the machine
does meanwhile, and that one process is slower than the other, are in both sides of it. With `--pinned` both share a
core that nothing else has, so the speed of that core is in both sides, too. (One process, profiled and not in turn,
takes twenty times as long to tell as much: on a shared machine a core is slower or faster by a tenth from one second to
the next.) It makes things worse rather than better: two processes that share a core each find its caches cold.

With an engine of this project requests are labelled in the one, and pass the middleware as if it were off in the other.
What a service pays once a window is not in a slice, and told apart: opening and closing the capture, and its first ten
seconds, in which every function's name is learnt, and the garbage collector goes once more through all that stays.

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
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from benchmarks.bootstrap import bootstrap
from benchmarks.pairs import machine
from benchmarks.service.handle import PINNED_CORE, Service
from profiling_middleware.config import ENGINES
from sample_app.load import DEFAULT_MIX, run_load
from sample_app.load_result import LoadResult

_SETTLE_SECONDS = 0.05
_FIRST_SECONDS = 10.0
# As a periodic window announces itself: how often a capture looks depends on how long it will be.
_WINDOW_SECONDS = 120.0
_SLICES_A_TURN = 10
_LONGEST_PAUSE_SECONDS = 0.5
_RESAMPLES = 300


class Slice(NamedTuple):
    """One load on one service."""

    cpu_ms: float
    """CPU time of the process, all its threads, for each request."""
    loop_ms: float
    """That of the event loop's thread."""
    latencies: tuple[float, ...]
    """Seconds, of the requests that were answered."""
    failures: int


class Round(NamedTuple):
    """Each service's slices, with and without; while one is with it the other is without."""

    on: tuple[Slice, Slice]
    off: tuple[Slice, Slice]


class Turn(NamedTuple):
    """One service profiled and the other not, for some slices; the first of them is a longer one."""

    on: list[Slice]
    off: list[Slice]
    window_ms: float
    """CPU time of opening and closing the capture."""


class Measured(NamedTuple):
    """All that was measured of one profiler."""

    first: list[Round]
    """Of captures that have only begun."""
    rounds: list[Round]
    windows_ms: list[float]


def main() -> None:
    """Every profiler in processes of its own."""
    options = _parser().parse_args()
    slices = [options.slices, options.slices_of_others or options.slices]
    print(
        f"on beside off: {slices[0]} slices of {options.seconds:g} s at {options.load:g} requests/s each, "
        f"{slices[1]} of all but {options.profilers[0]}{', pinned' if options.pinned else ''}; {machine()}",
        flush=True,
    )
    if options.pinned:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {PINNED_CORE})
    for number, profiler in enumerate(options.profilers):
        engine = profiler if profiler in ENGINES else None
        name = f"capture {options.kinds}" if engine else profiler
        with ExitStack() as stack:
            how = partial(Service, serve=True, rate=options.rate, engine=engine, pinned=options.pinned)
            services = stack.enter_context(how()), stack.enter_context(how())
            measured = _measure(services, name, options, is_other=number > 0)
        _report(f"{engine} {options.kinds}" if engine else profiler, measured)


def _measure(services: tuple[Service, Service], name: str, options: argparse.Namespace, *, is_other: bool) -> Measured:
    bench = _Bench(services, name, options)
    bench.turns(0)  # now everything is loaded, and off
    measured = Measured([], [], [])
    slices: int = options.slices_of_others if is_other and options.slices_of_others else options.slices
    for number in range(math.ceil(slices / 2 / _SLICES_A_TURN)):
        first, second = bench.turns(number % 2)
        on, off = zip(first.on, second.on, strict=True), zip(second.off, first.off, strict=True)
        beginning, *rounds = map(Round, on, off)
        measured.first.append(beginning)
        measured.rounds.extend(rounds)
        measured.windows_ms.extend((first.window_ms, second.window_ms))
    return measured


class _Bench:
    """Two services that are measured beside each other."""

    def __init__(self, services: tuple[Service, Service], name: str, options: argparse.Namespace) -> None:
        self._services, self._name, self._options = services, name, options
        self._mix = {path: weight for path, weight in DEFAULT_MIX.items() if path not in options.without}

    def turns(self, first: int) -> tuple[Turn, Turn]:
        """Each service is profiled once, this one first; those of the services in their order."""
        # What the machine does besides every so many seconds must not fall on the same one of the turns each time.
        self._slices(random.uniform(0.1, _LONGEST_PAUSE_SECONDS))
        one = self._turn(first)
        other = self._turn(1 - first)
        return (one, other) if first == 0 else (other, one)

    def _turn(self, which: int) -> Turn:
        service = self._services[which]
        began = service.cpu_ns()
        longest = _FIRST_SECONDS + (_SLICES_A_TURN + 1) * self._options.seconds
        service.on(self._name, _WINDOW_SECONDS if self._name.startswith("capture") else longest)
        opened = service.cpu_ns()
        slices = [self._slices(_FIRST_SECONDS)]
        slices += [self._slices(self._options.seconds) for _ in range(_SLICES_A_TURN)]
        ended = service.cpu_ns()
        service.off(self._name)
        window_ms = (opened - began + service.cpu_ns() - ended) / 1e6
        return Turn([both[which] for both in slices], [both[1 - which] for both in slices], window_ms)

    def _slices(self, seconds: float) -> list[Slice]:
        """One load on both."""
        time.sleep(_SETTLE_SECONDS)
        before = [(service.cpu_ns(), service.main_thread_cpu_ns()) for service in self._services]
        results = asyncio.run(self._load(seconds))
        slices = []
        for service, result, (cpu_ns, loop_ns) in zip(self._services, results, before, strict=True):
            used, used_by_loop = service.cpu_ns() - cpu_ns, service.main_thread_cpu_ns() - loop_ns
            requests = 1e6 * max(result.requests, 1)
            latencies = tuple(seconds for path in result.paths for seconds in path.latencies)
            failures = result.failures + result.skipped
            slices.append(Slice(used / requests, used_by_loop / requests, latencies, failures))
        return slices

    async def _load(self, seconds: float) -> list[LoadResult]:
        loads = [
            run_load(service.url, rate=self._options.load, seconds=seconds, mix=self._mix) for service in self._services
        ]
        return await asyncio.gather(*loads)


def cpu_ratio(rounds: Sequence[Round]) -> float:
    """CPU time of a request, on by off: the median over the rounds of both services' geometric mean."""
    return statistics.median(
        math.sqrt(one.on[0].cpu_ms * one.on[1].cpu_ms / (one.off[0].cpu_ms * one.off[1].cpu_ms)) for one in rounds
    )


def more(rounds: Sequence[Round], of: Callable[[Slice], float]) -> float:
    """How much more of it a request takes, in microseconds: the mean."""
    return 1e3 * statistics.fmean((sum(map(of, one.on)) - sum(map(of, one.off))) / 2 for one in rounds)


def latency_ratio(rounds: Sequence[Round], share: float) -> float:
    """The latency that this share of all answers did not exceed, on by off."""
    on, off = ([seconds for one in rounds for half in side(one) for seconds in half.latencies] for side in (_on, _off))
    return _percentile(on, share) / _percentile(off, share)


def _on(one: Round) -> tuple[Slice, Slice]:
    return one.on


def _off(one: Round) -> tuple[Slice, Slice]:
    return one.off


def _all_threads(one: Slice) -> float:
    return one.cpu_ms


def _loop_thread(one: Slice) -> float:
    return one.loop_ms


def _percentile(values: list[float], share: float) -> float:
    values.sort()
    return values[max(0, math.ceil(share * len(values)) - 1)]


def _report(name: str, measured: Measured) -> None:
    rounds = measured.rounds
    off = statistics.median(half.cpu_ms for one in rounds for half in one.off)
    requests = sum(len(half.latencies) for one in rounds for half in one.on)
    failures = sum(half.failures for one in rounds for half in (*one.on, *one.off))
    print(f"{name}: {requests} requests each way, {failures} failed or not sent; ratios (95 % interval)")
    print(f"  CPU of a request {bootstrap(rounds, cpu_ratio).text()}, {off:.2f} ms without")
    added, by_loop = (bootstrap(rounds, partial(more, of=of)).text(0) for of in (_all_threads, _loop_thread))
    print(f"  µs more in the mean: {added}, of the event loop's thread {by_loop}")
    for share in (0.5, 0.99):
        ratio = bootstrap(rounds, partial(latency_ratio, share=share), resamples=_RESAMPLES)
        print(f"  p{100 * share:.0f} of latency   {ratio.text()}")
    window_ms, first = statistics.median(measured.windows_ms), bootstrap(measured.first, cpu_ratio).text()
    print(
        f"  not in the above: opening and closing one capture {window_ms:.1f} ms of CPU, its first 10 s {first}",
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service_cost", description="What a service pays.")
    parser.add_argument("--profilers", type=lambda text: text.split(","), default=["auto"])
    parser.add_argument("--slices", type=int, default=240, help="each with one service on and the other off")
    parser.add_argument("--slices-of-others", type=int, help="of all profilers but the first; as many if not given")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a slice")
    parser.add_argument("--rate", type=int, default=100, help="samples a second")
    parser.add_argument("--load", type=float, default=60.0, help="requests a second of each")
    parser.add_argument("--without", type=lambda text: text.split(","), default=[], help="paths that are not asked for")
    parser.add_argument("--pinned", action="store_true", help="the services have a core to themselves, and no other")
    parser.add_argument(
        "--kinds", default="cpu+wall", help="what an engine of this project captures; trace-full: everything"
    )
    return parser


if __name__ == "__main__":
    main()
