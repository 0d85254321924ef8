"""Somebody else's tests with and without a profiler that captures all the time: what fails with it only is a failure."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ENGINES = ("native", "polling", "python")
_SECONDS = 1800
_NOTE = "captures.txt"
_MOST_NAMED = 5


class Suite(NamedTuple):
    """Tests that are run as one process."""

    name: str
    command: Callable[[Path], Sequence[str]]
    """Writes its results to the path that it is given, as JUnit does."""
    directory: Path | None = None
    """Where it runs; in one of its own, empty, if none is given."""


class Outcome(NamedTuple):
    failed: set[str]
    tests: int
    captures: int
    seconds: float


def compare(suite: Suite, engine: str, again: int) -> bool:
    """Whether nothing fails with the profiler only; what does so once may be chance, what does so each time is not."""
    profiled = _run(suite, engine)
    failed, plain = profiled.failed, set[str]()
    for _ in range(1 + again):
        if not failed - plain:
            break
        plain |= _run(suite, None).failed
        if failed - plain and again:
            # Who dies once does not die by chance.
            failed = {one for one in failed if one.endswith(")")} | (failed & _run(suite, engine).failed)
    only = sorted(failed - plain)
    print(
        f"{suite.name}: {profiled.tests} tests, {profiled.seconds:.0f} s with {profiled.captures} captures; "
        f"fails with the profiler only: {', '.join(only) or 'nothing'}",
        flush=True,
    )
    if plain:
        more = f" and {len(plain) - _MOST_NAMED} more" if len(plain) > _MOST_NAMED else ""
        print(f"    fails without it, too: {', '.join(sorted(plain)[:_MOST_NAMED])}{more}", flush=True)
    return not only and profiled.captures > 0 and profiled.tests > 0


def _run(suite: Suite, engine: str | None) -> Outcome:
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made).resolve()
        results, note, began = directory / "results.xml", directory / _NOTE, time.monotonic()
        process = subprocess.Popen(
            suite.command(results),
            env=_environment(directory, engine, note),
            cwd=suite.directory or directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)
            process.communicate()
            return Outcome({f"{suite.name} (hung)"}, 0, _captures(note), _SECONDS)
        failed, tests = _read(results) if results.is_file() else (set[str](), 0)
        if not tests or (process.returncode != 0 and not failed):
            print(said.decode(errors="replace")[-3000:])
            failed = {f"{suite.name} (exit code {process.returncode})"}
        return Outcome(failed, tests, _captures(note), time.monotonic() - began)


def _environment(directory: Path, engine: str | None, note: Path) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PROFILE_")}
    if engine is not None:
        shutil.copy(Path(__file__).with_name("always.py"), directory / "sitecustomize.py")
        environment |= {"TORTURE_ENGINE": engine, "TORTURE_NOTE": str(note)}
        environment["PYTHONPATH"] = f"{directory}{os.pathsep}{environment['PYTHONPATH']}"
    return environment


def _read(results: Path) -> tuple[set[str], int]:
    cases = list(ElementTree.parse(results).iter("testcase"))
    failed = {
        f"{case.get('classname', '')}.{case.get('name')}".rpartition("test.")[2]
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    return failed, len(cases)


def _captures(note: Path) -> int:
    """How many captures the tests' process, and those it started, have taken."""
    return note.read_text().count("\n") if note.is_file() else 0


def python(*options: str) -> list[str]:
    """This interpreter with these options."""
    return [sys.executable, *options]
