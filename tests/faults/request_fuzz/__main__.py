"""`scripts/full --fuzz [--requests N] [--seed S]`: prints the seed, what was sent, and what came of it."""

from __future__ import annotations

import argparse
import random
import sys
import time

from request_fuzz.run import run
from request_fuzz.watch import FuzzFailure


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/full --fuzz")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, help="what is sent, by chance: a run says its own")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    print(f"seed {seed}, {arguments.requests} requests", flush=True)
    began = time.monotonic()
    try:
        counts = run(arguments.requests, seed)
    except FuzzFailure as failure:
        print(f"FAILED: {failure}")
        return 1
    for name, count in sorted(counts.items()):
        print(f"{count:9} {name}")
    print(f"passed in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
