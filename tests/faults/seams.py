"""Makes every function of the package raise, one in each run of a service, and compares what its clients see.

    scripts/full --seams [--sample N] [--seed S] [--only TEXT] [--list]

A run is a process of its own in which one function raises RuntimeError, always or from its second call on. It fails if
any answer is not that of the application without the middleware, if it crashes, hangs, spins, or floods the log.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from faults.instrument import install, module_names

SEAMS = install()

from faults.exempt import EXEMPT  # noqa: E402 - what imports the package comes after it has its seams
from faults.runs import VARIANTS, Outcome, Run, Runner, load  # noqa: E402


def main() -> int:
    arguments = _arguments()
    load(SEAMS, module_names())
    if gone := EXEMPT - set(SEAMS.names):
        print("exempt, but there is none of them:", *sorted(gone), sep="\n")
        return 1
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    runner = Runner(SEAMS, arguments.jobs)
    expected = runner.reference(None)
    reached = {variant: runner.reference(variant) for variant in VARIANTS}
    if expected.trouble:
        print("without the middleware:", *expected.trouble, expected.log, sep="\n")
        return 1
    for variant, outcome in reached.items():
        if problems := outcome.problems(expected):
            print(f"{variant}, without any fault:", *problems, outcome.log, sep="\n")
            return 1
    runs = _plan(reached, arguments)
    requests = set().union(*(outcome.reached_by_requests for outcome in reached.values())) - EXEMPT
    if arguments.sample is not None:
        others = sorted({run.seam for run in runs} - requests)
        chosen = set(random.Random(seed).sample(others, min(arguments.sample, len(others)))) | requests
        runs = _one_each([run for run in runs if run.seam in chosen], random.Random(seed))
    names = {run.seam for run in runs}
    unreached = set(SEAMS.names) - set().union(*(outcome.reached for outcome in reached.values()))
    print(
        f"seed {seed}: {len(SEAMS.names)} functions, {len(unreached)} of them not reached here, {len(EXEMPT)} exempt; "
        f"{len(names)} raise, {len(names & requests)} of them on the way of requests, in {len(runs)} runs",
        flush=True,
    )
    if arguments.list:
        print(*sorted(unreached if not arguments.only else names), sep="\n")
        return 0
    began, failed, quiet = time.monotonic(), 0, 0
    for done, (run, outcome) in enumerate(runner.all(runs)):
        if done % 200 == 199:
            print(f"{done + 1} runs after {time.monotonic() - began:.0f} s", flush=True)
        quiet += not outcome.raised
        problems = outcome.problems(expected)
        if problems:
            failed += 1
            print(f"FAILED {run}: {'; '.join(problems)}", flush=True)
            if arguments.verbose:
                print(outcome.log)
    seconds = time.monotonic() - began
    print(f"{len(runs)} runs in {seconds:.0f} s, {failed} failed; in {quiet} the function was not called often enough")
    return 1 if failed else 0


def _plan(reached: dict[str, Outcome], arguments: argparse.Namespace) -> list[Run]:
    """Each function where it is reached first; what the service's own threads call, in every variant."""
    runs: list[Run] = []
    for name in SEAMS.names:
        if name in EXEMPT or arguments.only not in name:
            continue
        by_service = [variant for variant, outcome in reached.items() if name in outcome.reached_by_service]
        where = by_service or [variant for variant, outcome in reached.items() if name in outcome.reached][:1]
        runs += (Run(name, variant, calls) for variant in where for calls in (0, 1))
    return runs


def _one_each(runs: list[Run], chance: random.Random) -> list[Run]:
    """For each function one of its runs."""
    by_seam: dict[str, list[Run]] = {}
    for run in runs:
        by_seam.setdefault(run.seam, []).append(run)
    return [chance.choice(these) for these in by_seam.values()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/full --seams", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--sample",
        type=int,
        help="one run each of what is on the way of requests, and of so many others, by chance",
    )
    parser.add_argument("--seed", type=int, help="of that choice")
    parser.add_argument("--only", default="", help="those with this in their names")
    parser.add_argument("--jobs", type=int, default=4, help="runs at a time: they mostly wait")
    parser.add_argument("--list", action="store_true", help="name the functions that no run reaches, and end")
    parser.add_argument("--verbose", action="store_true", help="show what failed runs have logged")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
