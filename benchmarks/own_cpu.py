"""What profiling itself costs in CPU and memory, as a multiple of a thread that does nothing but wake up.

`python -m benchmarks.own_cpu [--profilers auto,…] [--rounds 20] [--seconds 3] [--rate 100] [--load 30]`. A profiler is
an engine of this project, a peer by its name in benchmarks.truth, or `burner 0.02`, which is known to cost 2 % of a
core and has to come out as that.

In every round each thing is on for one slice, in changing order: nothing, the bare thread (compiled from C, see
service/bare_thread.py), the profiler. Own CPU is told twice: as the profile's own comment says it, and from outside,
as CPU time of the process with it less the slice of nothing in the same round. The bare thread's is its own clock.
Under load the slices get the same requests. From outside, a slice begins once the capture has begun and ends before it
is ended and encoded; the comment's account has its beginning and its end, which weigh more in a slice than in a window
of minutes. Memory is that of the process at rest: with the profiler less before it was loaded, an S3 client not
included. py-spy (another process) and pyinstrument (started on the thread it watches) are not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.bootstrap import bootstrap
from benchmarks.pairs import machine
from benchmarks.service.handle import Service
from profiling_middleware.config import ENGINES
from sample_app.load import run_load

_NOTHING, _BARE = "", "bare"
_SETTLE_SECONDS = 0.1
_MARGIN_SECONDS = 2.0


class Case(NamedTuple):
    """One process to measure in."""

    title: str
    kinds: str
    """What an own engine captures; peers do what they do."""
    load: bool
    sleepers: int


CASES = (
    Case("cpu, under load", "cpu", True, 0),
    Case("cpu, at rest", "cpu", False, 0),
    Case("cpu+wall+block, 10 threads asleep", "cpu+wall+block", False, 10),
    Case("cpu+wall+block, 100 threads asleep", "cpu+wall+block", False, 100),
    Case("cpu+wall+block, 1000 threads asleep", "cpu+wall+block", False, 1000),
)


class Slice(NamedTuple):
    """Shares of a core."""

    outside: float
    said: float | None


def main() -> None:
    """Every profiler in every case."""
    options = _parser().parse_args()
    rounds = f"{options.rounds} rounds of {options.seconds:g} s"
    print(f"own CPU in % of a core: median (95 % interval), {rounds}; {machine()}")
    for case in CASES if options.cases is None else [CASES[number] for number in options.cases]:
        print(f"\n{case.title}:")
        for profiler in options.profilers:
            _measure(case, profiler, options)


def _measure(case: Case, profiler: str, options: argparse.Namespace) -> None:
    engine = profiler if profiler in ENGINES else None
    measured = f"capture {case.kinds}" if engine else profiler
    slices: dict[str, list[Slice]] = {name: [] for name in (_NOTHING, _BARE, measured)}
    order = list(slices)
    generator = random.Random(0)
    with Service(serve=case.load, rate=options.rate, engine=engine) as service:
        service.sleepers(case.sleepers)
        load = options.load if case.load else None
        _slice(service, _NOTHING, options.seconds, load)
        before = during = service.memory()
        for _ in range(options.rounds):
            generator.shuffle(order)
            for name in order:
                slices[name].append(_slice(service, name, options.seconds, load))
        if not case.load:
            service.on(measured, options.seconds)
            time.sleep(options.seconds)
            during = service.memory()
            service.off(measured)
    _report(profiler, slices[_NOTHING], slices[_BARE], slices[measured])
    if not case.load:
        print(f"    memory {(during - before) / 2**20:+.1f} MiB on {before / 2**20:.0f}")


def _slice(service: Service, name: str, seconds: float, load: float | None) -> Slice:
    """One slice with that switched on."""
    if name:
        service.on(name, seconds + _MARGIN_SECONDS)
    time.sleep(_SETTLE_SECONDS)
    began, before = time.monotonic(), service.cpu_ns()
    if load is None:
        time.sleep(seconds)
    else:
        asyncio.run(run_load(service.url, rate=load, seconds=seconds))
    used, lasted = service.cpu_ns() - before, time.monotonic() - began
    said = service.off(name) if name else None
    # Under load a slice ends with its last answer: what counts is the work, which is the same in all.
    return Slice(used / 1e9 / (lasted if load is None else seconds), said)


def _report(profiler: str, nothing: Sequence[Slice], bare: Sequence[Slice], on: Sequence[Slice]) -> None:
    floor = statistics.median(each.said for each in bare if each.said is not None)
    outside = _differences(on, nothing)
    said = [each.said for each in on if each.said is not None]
    line = f"  {profiler:15} from outside {_percent(outside)} = {statistics.median(outside) / floor:.2f} bare threads"
    if said:
        line += f"; by its own account {_percent(said)} = {statistics.median(said) / floor:.2f}"
    print(line, flush=True)
    print(
        f"    bare thread {floor:.3%} by its clock, outside {_percent(_differences(bare, nothing))}; without both "
        f"{statistics.median(each.outside for each in nothing):.2%}",
        flush=True,
    )


def _differences(on: Sequence[Slice], nothing: Sequence[Slice]) -> list[float]:
    return [one.outside - other.outside for one, other in zip(on, nothing, strict=True)]


def _percent(values: Sequence[float]) -> str:
    return bootstrap([100 * value for value in values]).text(3, " %")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_cpu", description="What profiling itself costs.")
    parser.add_argument("--profilers", type=_names, default=["auto"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a slice")
    parser.add_argument("--rate", type=int, default=100, help="samples and wake-ups a second")
    parser.add_argument("--load", type=float, default=30.0, help="requests a second")
    cases = ", ".join(f"{number}: {case.title}" for number, case in enumerate(CASES))
    parser.add_argument("--cases", type=_numbers, help=f"such as 0,2; {cases}".replace("%", "%%"))
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    return [int(name) for name in _names(text)]


if __name__ == "__main__":
    main()
