"""Runs CPython's own tests with and without a profiler that captures all the time: see `scripts/cpython-tests`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

TESTS = ("test_signal", "test_threading", "test_subprocess", "test_socket", "test_asyncio")
_SECONDS = 1800
_NOTE = "captures.txt"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/cpython-tests")
    parser.add_argument("--engine", choices=("native", "polling"), default="native")
    parser.add_argument("--again", type=int, default=2, help="how often what failed with it only is tried again")
    parser.add_argument("tests", nargs="*", default=TESTS)
    arguments = parser.parse_args()
    if importlib.util.find_spec("test.libregrtest") is None:
        print(f"{sys.executable} has no test package", file=sys.stderr)
        return 2
    print(f"Python {sys.version.split()[0]}, {arguments.engine}")
    bad = [name for name in arguments.tests if not _compare(name, arguments.engine, arguments.again)]
    print("all pass with the profiler that pass without" if not bad else f"FAILED: {', '.join(bad)}")
    return 1 if bad else 0


def _compare(name: str, engine: str, again: int) -> bool:
    """Whether nothing fails with the profiler only; what does so once may be chance, what does so each time is not."""
    profiled, captures, seconds = _failures(name, engine)
    plain: set[str] = set()
    for _ in range(1 + again):
        if not profiled - plain:
            break
        plain |= _failures(name, None)[0]
        if profiled - plain and again:
            # Who dies once does not die by chance.
            profiled = {one for one in profiled if one.endswith(")")} | (profiled & _failures(name, engine)[0])
    only = sorted(profiled - plain)
    print(
        f"{name}: {seconds:.0f} s with {captures} captures; fails with the profiler only: {', '.join(only) or 'nothing'}"
    )
    if plain:
        print(f"    fails without it, too: {', '.join(sorted(plain))}")
    return not only and captures > 0


def _failures(name: str, engine: str | None) -> tuple[set[str], int, float]:
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made).resolve()
        results, note, began = directory / "results.xml", directory / _NOTE, time.monotonic()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PROFILE_")}
        if engine is not None:
            shutil.copy(Path(__file__).with_name("always.py"), directory / "sitecustomize.py")
            environment |= {"TORTURE_ENGINE": engine, "TORTURE_NOTE": str(note)}
            environment["PYTHONPATH"] = f"{directory}{os.pathsep}{environment['PYTHONPATH']}"
        options = ["--junit-xml", str(results), "--timeout", "300", "-u", "none"]
        # In a virtual machine these wait for ever for an answer of the host's, with and without the profiler.
        options += ["--ignore", "*VSOCK*"]
        command = [sys.executable, "-m", "test", *options, name]
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)
            said, _ = process.communicate()
            return {f"{name} (hung)"}, _captures(note), _SECONDS
        seconds = time.monotonic() - began
        if not results.is_file():
            print(said.decode(errors="replace")[-3000:])
            return {f"{name} (exit code {process.returncode})"}, _captures(note), seconds
        found = _read(results)
        if process.returncode != 0 and not found:
            print(said.decode(errors="replace")[-3000:])
            found = {f"{name} (exit code {process.returncode})"}
        return found, _captures(note), seconds


def _read(results: Path) -> set[str]:
    cases = ElementTree.parse(results).iter("testcase")
    return {
        str(case.get("name")).rpartition("test.")[2]
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }


def _captures(note: Path) -> int:
    """How many captures the tests' process, and those it started, have taken."""
    return note.read_text().count("\n") if note.is_file() else 0


if __name__ == "__main__":
    sys.exit(main())
