"""`python -m benchmarks.truth`: see the package for what it measures."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.pairs import machine
from benchmarks.truth.profilers import PROFILERS
from benchmarks.truth.profilers.base import Profiler
from benchmarks.truth.programs import PROGRAMS, Program
from benchmarks.truth.report import as_data, program_report, summary
from benchmarks.truth.runs import How, Run, RunFailed, run

_SECONDS, _SECONDS_BY_LINE = 20.0, 60.0
Entry = TypeVar("Entry")


def main() -> None:
    """Runs every profiler on every program, round by round, and prints what came of it."""
    options = _parser().parse_args()
    by_line: bool = options.lines
    programs = _chosen(PROGRAMS, options.programs or _default_programs(by_line=by_line), "program")
    profilers = _usable(_chosen(PROFILERS, options.profilers, "profiler"))
    if by_line and (without := [name for name, program in programs.items() if not program.by_line]):
        sys.exit(f"the lines of {', '.join(without)} are not known: leave out --lines or these programs")
    seconds = options.seconds or (_SECONDS_BY_LINE if by_line else _SECONDS)
    others = min(options.runs, options.runs_of_others or options.runs)
    how = How(seconds=seconds, rate=options.rate, pinned=options.pinned, by_line=by_line)
    print(
        f"{'by line' if by_line else 'by function'}: {options.runs} runs of {how.seconds:g} s at {how.rate} Hz"
        f"{f', {others} of all but {next(iter(profilers))}' if others < options.runs else ''}"
        f"{', pinned to one core beside a busy process' if how.pinned else ''}; mean (min..max); {machine()}",
        flush=True,
    )
    results = _measure(programs, profilers, [options.runs] + [others] * (len(profilers) - 1), how)
    for name, program in programs.items():
        print("\n" + program_report(name, program, {profiler: results[name, profiler] for profiler in profilers}))
    print("\n" + summary(results, list(programs), list(profilers)))
    if options.json:
        Path(options.json).write_text(json.dumps(as_data(results), indent=1))


def _measure(
    programs: Mapping[str, Program], profilers: Mapping[str, Profiler], runs: Sequence[int], how: How
) -> dict[tuple[str, str], list[Run]]:
    results: dict[tuple[str, str], list[Run]] = {(name, profiler): [] for name in programs for profiler in profilers}
    began, rounds = time.monotonic(), max(runs)
    for number in range(rounds):
        for name, program in programs.items():
            # Nobody is always first: what this machine does besides changes with time.
            order = [profiler for profiler, wanted in zip(profilers.values(), runs, strict=True) if number < wanted]
            order = order[number % len(order) :] + order[: number % len(order)]
            for profiler in order:
                try:
                    results[name, profiler.name].append(run(name, program, profiler, how))
                except RunFailed as error:
                    print(f"{name}, {profiler.name}: {error}", flush=True)
        print(
            f"round {number + 1} of {rounds} done after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True
        )
    return results


def _default_programs(*, by_line: bool) -> list[str]:
    return [name for name, program in PROGRAMS.items() if (program.by_line if by_line else program.default)]


def _chosen(table: Mapping[str, Entry], names: Sequence[str], what: str) -> dict[str, Entry]:
    if unknown := [name for name in names if name not in table]:
        sys.exit(f"there is no {what} {', '.join(unknown)}: choose from {', '.join(table)}")
    return {name: table[name] for name in names}


def _usable(profilers: Mapping[str, Profiler]) -> dict[str, Profiler]:
    usable = {}
    for name, profiler in profilers.items():
        missing = profiler.missing()
        if missing is None:
            usable[name] = profiler
        else:
            print(f"{name}: left out, {missing}")
    if not usable:
        sys.exit("there is no profiler left to measure")
    return usable


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truth", description="How true CPU profiles are.")
    parser.add_argument("--profilers", type=_names, default=list(PROFILERS), help=", ".join(PROFILERS))
    parser.add_argument("--programs", type=_names, help=", ".join(PROGRAMS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--runs-of-others", type=int, help="of all profilers but the first")
    parser.add_argument("--seconds", type=float, help=f"of a run; {_SECONDS:g}, by line {_SECONDS_BY_LINE:g}")
    parser.add_argument("--rate", type=int, default=100, help="samples a second")
    parser.add_argument("--pinned", action="store_true", help="on one core, beside a process that never rests")
    parser.add_argument("--lines", action="store_true", help="by line instead of by function")
    parser.add_argument("--json", help="a file for the figures of every run")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    main()
