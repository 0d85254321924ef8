"""The programs of known cost. None of them knows which profiler is watching, or whether one is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

from benchmarks.truth.programs import (
    c_calls,
    coroutines,
    gil_fight,
    loops,
    mixed_threads,
    operators,
    work_sleep,
)
from benchmarks.truth.stage import Actor


@dataclass(frozen=True, slots=True)
class Program:
    """What can be run, and what is in it."""

    module: ModuleType
    prepare: Callable[[], Sequence[Actor]]
    """Everything that is done once, before a profiler starts."""
    title: str
    by_line: bool = False
    """Whether single lines of it are known as well as its functions are."""
    sleeps: bool = False
    """Whether it is one of those that work and sleep."""
    waits: bool = True
    """Whether its threads may wait for something, if only for the GIL."""
    late: bool = False
    """Whether its threads begin when the profiler is on already."""
    default: bool = True
    """Whether it is measured by function when nobody names it."""

    @property
    def source(self) -> Path:
        """The file with the functions whose cost is known."""
        return Path(str(self.module.__file__))


def _work_sleep(work_ms: float, sleep_ms: float) -> Program:
    prepare = partial(work_sleep.prepare, work_ms, sleep_ms)
    return Program(work_sleep, prepare, f"{work_ms:g} ms work, {sleep_ms:g} ms asleep", sleeps=True)


PROGRAMS: Mapping[str, Program] = {
    "loops": Program(loops, loops.prepare, "pure Python, 60:30:10", by_line=True, waits=False),
    "c-calls": Program(c_calls, c_calls.prepare, "C calls, with and without the GIL", by_line=True, waits=False),
    "threads": Program(mixed_threads, mixed_threads.prepare, "three threads working, six asleep"),
    "asyncio": Program(coroutines, coroutines.prepare, "asyncio tasks, 5:3:2", waits=False),
    "gil-fight": Program(gil_fight, gil_fight.prepare, "four threads fighting for the GIL"),
    "work-3-7": _work_sleep(3.0, 7.0),
    "work-1-20": _work_sleep(1.0, 20.0),
    "work-0.3-3": _work_sleep(0.3, 3.0),
    "new-threads": Program(
        mixed_threads, mixed_threads.prepare, "the same threads, begun under the profiler", late=True, default=False
    ),
    "operators": Program(
        operators,
        operators.prepare,
        "operators on long numbers, line by line",
        by_line=True,
        waits=False,
        default=False,
    ),
}
