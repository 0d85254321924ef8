"""Runs `torture.run` in a process of its own and says how it ended: see `scripts/full`."""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from torture.mutations import MUTATIONS, mutate
from torture.variants import VARIANTS, Variant, build, copy_package, environment

_GRACE_SECONDS = 300
_GROWTH, _GROWN_SECONDS = 64.0, 480.0
"""KiB a second that a run of so many seconds may grow: in a short one what is known at once is still being learnt."""


def main() -> int:
    arguments, rest = _arguments()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    common = ["--seed", str(seed), "--engine", arguments.engine, *(["--calm"] if arguments.calm else []), *rest]
    print(f"seed {seed}, {arguments.engine}, Python {platform.python_version()}", flush=True)
    if arguments.mutations is not None:
        names = arguments.mutations or [name for name, one in MUTATIONS.items() if arguments.engine in one.engines]
        missed = [name for name in names if not _is_noticed(name, common)]
        print(f"NOT NOTICED: {', '.join(missed)}" if missed else "all mutations are noticed")
        return 1 if missed else 0
    chosen = list(VARIANTS) if arguments.all else [name for name in VARIANTS if name in arguments.variants] or ["plain"]
    failed = [name for name in chosen if not _passes(name, arguments.seconds, common)]
    print(f"FAILED: {', '.join(failed)}" if failed else "passed")
    return 1 if failed else 0


def _passes(name: str, seconds: float, common: Sequence[str]) -> bool:
    variant = VARIANTS[name]
    with tempfile.TemporaryDirectory(prefix="torture-") as made:
        directory = None
        if variant.flags:
            directory = Path(made)
            build(copy_package(directory), variant.flags)
        began = time.monotonic()
        print(f"== {name}, {seconds:g} s", flush=True)
        said, ended = _run(variant, directory, seconds, common)
        print(said.rstrip())
        print(f"== {name}: {ended} after {time.monotonic() - began:.0f} s", flush=True)
        return ended == "fine"


def _is_noticed(name: str, common: Sequence[str]) -> bool:
    """Whether a run fails with an engine that is broken in one place; `why` it should is the first thing it says."""
    with tempfile.TemporaryDirectory(prefix="torture-") as made:
        package = copy_package(Path(made))
        mutate(package, name)
        build(package, ("-O2",))
        began = time.monotonic()
        said, ended = _run(VARIANTS["plain"], Path(made), MUTATIONS[name].seconds, [*common, "--first-failure"])
        reason = next((line for line in said.splitlines() if line.startswith(("FAILED", "Fatal"))), "")
        lines = said.splitlines()
        if reason.startswith("FAILED: wrong"):
            reason = lines[lines.index(reason) + 1]
        noticed = ended != "fine"
        print(
            f"{name}: {'noticed' if noticed else 'NOT NOTICED'} in {time.monotonic() - began:.0f} s: {ended}, {reason}",
            flush=True,
        )
        return noticed


def _run(variant: Variant, directory: Path | None, seconds: float, common: Sequence[str]) -> tuple[str, str]:
    """What it said, and how it ended."""
    growth = _GROWTH * variant.growth * max(1.0, _GROWN_SECONDS / seconds)
    command = [
        sys.executable,
        "-P",  # the current folder has the package as it is, and would come first
        "-m",
        "torture.run",
        "--seconds",
        f"{seconds:g}",
        "--most-growth",
        f"{growth:g}",
        *common,
    ]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env=environment(variant, directory), stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = process.wait(seconds * variant.slowness + _GRACE_SECONDS)
            ended = "fine" if code == 0 else f"died of {signal.Signals(-code).name}" if code < 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # faulthandler says where all threads are
            process.wait()
            ended = "hung"
        finally:
            _end_group(process.pid)
        output.seek(0)
        return output.read().decode(errors="replace"), ended


def _end_group(group: int) -> None:
    """Children that hang as well."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="scripts/full", epilog="Other options go to torture.run: --works calls codes …"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="of each run; without its start and its end")
    parser.add_argument("--seed", type=int, help="what is done, by chance: a run says its own")
    parser.add_argument("--engine", choices=("native", "polling"), default="native")
    parser.add_argument("--calm", action="store_true", help="only the signals the engine itself asks for")
    for name in VARIANTS:
        if name != "plain":
            parser.add_argument(f"--{name}", dest="variants", action="append_const", const=name, default=[])
    parser.add_argument(
        "--plain", dest="variants", action="append_const", const="plain", help="(when nothing else is said)"
    )
    parser.add_argument("--all", action="store_true", help="all of these, one after the other")
    parser.add_argument("--mutations", nargs="*", metavar="NAME", help="break the engine, and see that a run notices")
    return parser.parse_known_args()


if __name__ == "__main__":
    sys.exit(main())
