"""One run: one program under one profiler, in this process. Started by `benchmarks.truth`, prints the truth as JSON."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from benchmarks.truth.profilers import PROFILERS
from benchmarks.truth.programs import PROGRAMS
from benchmarks.truth.stage import Stage

_SETTLE_SECONDS = 0.3
_SLACK_SECONDS = 1.5


def main() -> None:
    """See `_parser` for what it takes."""
    options = _parser().parse_args()
    if options.core is not None:
        # Before there are threads: those to come inherit it.
        os.sched_setaffinity(0, {options.core})
    profiler = PROFILERS[options.profiler]
    program = PROGRAMS[options.program]
    actors = program.prepare()
    with (
        Stage(actors, options.seconds, late=program.late, waits=program.waits) as stage,
        profiler.recording(options.directory, options.rate, options.seconds + _SLACK_SECONDS),
    ):
        settle()
        truth = stage.run()
        settle()
    print(truth.to_json())


def settle() -> None:
    """Gives the profiler time to begin, and to see the end."""
    time.sleep(_SETTLE_SECONDS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truth.child", description=__doc__)
    parser.add_argument("--program", choices=PROGRAMS, required=True)
    parser.add_argument("--profiler", choices=PROFILERS, required=True)
    parser.add_argument("--directory", type=Path, required=True, help="where the profile is left")
    parser.add_argument("--seconds", type=float, required=True, help="how long the program runs")
    parser.add_argument("--rate", type=int, required=True, help="samples a second")
    parser.add_argument("--core", type=int, help="the only core to run on")
    return parser


if __name__ == "__main__":
    main()
