"""CPython's own tests: see `scripts/cpython-tests`."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from pathlib import Path

from torture.compare import ENGINES, Suite, compare, python

_OF_SAMPLING = ("test_signal", "test_threading", "test_subprocess", "test_socket", "test_asyncio")
_OF_LOCKS = ("test_thread", "test_queue", "test_concurrent_futures", "test_logging")


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/cpython-tests")
    parser.add_argument("--engine", choices=ENGINES, default="native")
    parser.add_argument("--again", type=int, default=2, help="how often what failed with it only is tried again")
    parser.add_argument("tests", nargs="*", default=_OF_SAMPLING + _OF_LOCKS)
    arguments = parser.parse_args()
    if importlib.util.find_spec("test.libregrtest") is None:
        print(f"{sys.executable} has no test package", file=sys.stderr)
        return 2
    # A shell without job control has what it runs in the background ignore SIGINT, and tests interrupt themselves by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(f"Python {sys.version.split()[0]}, {arguments.engine}", flush=True)
    # 3.11.7 was installed without test_concurrent_futures.
    missing = [name for name in arguments.tests if importlib.util.find_spec(f"test.{name}") is None]
    if missing:
        print(f"not installed: {', '.join(missing)}")
    tests = [name for name in arguments.tests if name not in missing]
    bad = [name for name in tests if not compare(_suite(name), arguments.engine, arguments.again)]
    print("all pass with the profiler that pass without" if not bad else f"FAILED: {', '.join(bad)}")
    return 1 if bad else 0


def _suite(name: str) -> Suite:
    def command(results: Path) -> list[str]:
        options = ["--junit-xml", str(results), "--timeout", "300", "-u", "none"]
        # In a virtual machine these wait for ever for an answer of the host's, with and without the profiler.
        options += ["--ignore", "*VSOCK*"]
        # It lets one thread be started, the pool's, by a fake; a profiler ends its own for each fork and starts it again.
        options += ["--ignore", "*test_python_finalization_error"]
        return python("-m", "test", *options, name)

    return Suite(name, command)


if __name__ == "__main__":
    sys.exit(main())
