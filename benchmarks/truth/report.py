"""What the runs came to, as tables for people."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from benchmarks.truth.programs import Program
from benchmarks.truth.programs.work_sleep import REST
from benchmarks.truth.runs import Run
from benchmarks.truth.score import ELSEWHERE

Results = Mapping[tuple[str, str], Sequence[Run]]
"""By the names of program and profiler."""


def program_report(name: str, program: Program, results: Mapping[str, Sequence[Run]]) -> str:
    """One program: the true shares, then a line for each profiler that has runs."""
    every = [run for runs in results.values() for run in runs]
    lines = [f"{name}: {program.title}", f"  true: {_shares(every, 'true')}"]
    if program.sleeps and every:
        lines.append(f"  the sleep call itself: {_sleep_cost(every)}")
    header = f"  {'':15} {'distance':>22} {'by chance':>9} {'samples':>8} {'measured/true':>20}"
    lines.append(header + (f" {'on work: measured, true':>30}" if program.sleeps else ""))
    for profiler, runs in results.items():
        if not runs:
            lines.append(f"  {profiler:15} no run")
            continue
        line = (
            f"  {profiler:15} {_spread(runs, lambda run: run.score.distance):>22}"
            f" {_mean(runs, lambda run: run.score.floor):>9.3f}"
            f" {_mean(runs, lambda run: run.score.samples):>8.0f}"
            f" {_spread(runs, lambda run: run.score.measured_to_true, 2):>20}"
        )
        if program.sleeps:
            measured = _spread(runs, lambda run: 100 * run.score.measured.get("work", 0.0), 1)
            line += f"  {measured} % of {_mean(runs, lambda run: 100 * run.score.true['work']):.1f} %"
        lines.append(line)
    for profiler, runs in results.items():
        if runs:
            lines.append(f"  {profiler:15} saw: {_shares(runs, 'measured')}")
    return "\n".join(lines)


def summary(results: Results, programs: Sequence[str], profilers: Sequence[str]) -> str:
    """Mean distances: a line for each profiler, a column for each program."""
    lines = ["mean distance".ljust(17) + "".join(f"{program:>12}" for program in programs)]
    for profiler in profilers:
        cells = [results.get((program, profiler), ()) for program in programs]
        texts = [f"{_mean(runs, lambda run: run.score.distance):.3f}" if runs else "-" for runs in cells]
        lines.append(f"{profiler:17}" + "".join(f"{text:>12}" for text in texts))
    return "\n".join(lines)


def as_data(results: Results) -> list[dict[str, object]]:
    """Every run, ready for JSON."""
    return [
        {
            "program": program,
            "profiler": profiler,
            "distance": run.score.distance,
            "floor": run.score.floor,
            "samples": run.score.samples,
            "measured_to_true": run.score.measured_to_true,
            "measured": dict(run.score.measured),
            "true": dict(run.score.true),
            "true_total_ns": run.truth.total_ns,
            "profiler_own_ns": run.own_ns,
        }
        for (program, profiler), runs in results.items()
        for run in runs
    ]


def _shares(runs: Sequence[Run], side: str) -> str:
    sums: dict[str, list[float]] = {}
    for run in runs:
        for place in run.score.true if side == "true" else {**run.score.true, **run.score.measured}:
            sums.setdefault(place, []).append(getattr(run.score, side).get(place, 0.0))
    ordered = sorted(sums.items(), key=lambda item: (item[0] == ELSEWHERE, item[0]))
    return ", ".join(f"{place} {statistics.fmean(values):.1%}" for place, values in ordered)


def _sleep_cost(runs: Sequence[Run]) -> str:
    spent = [run.truth.pieces[REST] for run in runs if REST in run.truth.pieces]
    each = [rest.cpu_ns / rest.times / 1000 for rest in spent]
    share = [run.score.true.get("rest", 0.0) for run in runs]
    return (
        f"{statistics.fmean(each):.1f} µs of CPU each ({min(each):.1f}..{max(each):.1f}), "
        f"{statistics.fmean(share):.1%} of the program's CPU ({min(share):.1%}..{max(share):.1%})"
    )


def _mean(runs: Sequence[Run], value: Callable[[Run], float]) -> float:
    return statistics.fmean(map(value, runs))


def _spread(runs: Sequence[Run], value: Callable[[Run], float], digits: int = 3) -> str:
    values = [value(run) for run in runs]
    return f"{statistics.fmean(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"
