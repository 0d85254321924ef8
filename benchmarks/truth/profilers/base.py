"""What every profiler is asked for here: to be switched on and off in a process, and for what it saw."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sample_app.pprof_reader import Frame

_STARTED_HERE = "benchmarks/truth/profilers/"
_PROGRAM = ("benchmarks/truth/programs/", "benchmarks/truth/stage.py")


class Seen(NamedTuple):
    """One line of a profile."""

    stack: tuple[Frame, ...]
    """The leaf comes first."""
    cpu_ns: float
    samples: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiler:
    """One profiler, or one of its modes."""

    name: str
    missing: Callable[[], str | None]
    """Why it cannot be used here; None when it can."""
    recording: Callable[[Path, int, float], AbstractContextManager[None]]
    """(directory, samples a second, seconds): on within the `with` block, in the process that is profiled.

    What it saw is left in files in the directory. The block may take `seconds` at most.
    """
    read: Callable[[Path], Sequence[Seen]]
    """What it saw of CPU time, from the files in the directory."""
    own: tuple[str, ...]
    """In the file or the name of a function: this is the profiler itself, not the program."""

    def is_own(self, stack: Sequence[Frame]) -> bool:
        """Whether CPU time on this stack is the profiler's own."""
        # Below a thread of the program there may be a profiler's frame: some put themselves into threading.
        if any(mark in frame.file for frame in stack for mark in _PROGRAM):
            return False
        marks = (_STARTED_HERE, *self.own)
        return any(mark in frame.file or mark in frame.function for frame in stack for mark in marks)


def without_module(module: str) -> Callable[[], str | None]:
    """Whether a module is missing, as `Profiler.missing` says it."""

    def missing() -> str | None:
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        return None if found else f"there is no module {module}"

    return missing


def command(name: str) -> str | None:
    """A program that was installed beside this interpreter, or on the path."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
