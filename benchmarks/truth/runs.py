"""Runs in fresh processes, and beside them, when asked, somebody who wants the same core."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.truth.pieces import pieces_of
from benchmarks.truth.profilers.base import Profiler
from benchmarks.truth.programs import Program
from benchmarks.truth.score import Score, score
from benchmarks.truth.stage import Truth

_ROOT = Path(__file__).parents[2]
_EXTRA_SECONDS = 90.0


class RunFailed(Exception):  # noqa: N818 - it says what is the case
    """The process of one run ended without a truth or without a profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How every run is done."""

    seconds: float
    rate: int
    pinned: bool
    by_line: bool


@dataclass(frozen=True, slots=True)
class Run:
    """What one run came to."""

    score: Score
    truth: Truth
    own_ns: float
    """CPU time that the profile says was the profiler's own."""


def run(program_name: str, program: Program, profiler: Profiler, how: How) -> Run:
    """One run. Raises RunFailed."""
    core = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="truth-") as directory, _competitor(core if how.pinned else None):
        arguments = ["--program", program_name, "--profiler", profiler.name, "--directory", directory]
        arguments += ["--seconds", str(how.seconds), "--rate", str(how.rate)]
        truth = _truth(arguments + (["--core", str(core)] if how.pinned else []), how.seconds)
        try:
            seen = profiler.read(Path(directory))
        except (OSError, ValueError) as error:
            raise RunFailed(f"the profile cannot be read: {error}") from error
    own = sum(each.cpu_ns for each in seen if profiler.is_own(each.stack))
    program_seen = [each for each in seen if not profiler.is_own(each.stack)]
    known = pieces_of(program.source)
    return Run(score(truth, program_seen, known, program.source.name, by_line=how.by_line), truth, own)


def _truth(arguments: Sequence[str], seconds: float) -> Truth:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PROFILE_", "DD_"))}
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.truth.child", *arguments],
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds + _EXTRA_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise RunFailed(f"ended with {error.returncode}: {error.stderr.strip()[-500:]}") from error
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"no end within {error.timeout:g} s") from error
    lines = ended.stdout.strip().splitlines()
    try:
        return Truth.from_json(lines[-1] if lines else "")
    except ValueError as error:
        raise RunFailed(str(error)) from error


@contextmanager
def _competitor(core: int | None) -> Iterator[None]:
    """A process that never rests, on that core; None: nobody."""
    if core is None:
        yield
        return
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    os.sched_setaffinity(busy.pid, {core})
    try:
        yield
    finally:
        busy.kill()
        busy.wait()
