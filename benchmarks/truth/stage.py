"""Runs a program: each of its actors on a thread with a clock of its own, and adds up what the clocks say."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

from benchmarks.truth.clock import Clock, Spent, TimeOnCore

Actor = Callable[[Clock], None]
"""One thread of a program: works while its clock is running."""

Part = Callable[[Clock, int], None]
"""One function of known cost: it does work of a size and tells the clock of its pieces."""

_END_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Truth:
    """What a program has spent, in nanoseconds of CPU time."""

    pieces: Mapping[str, Spent]
    """Of all threads, by the name of the piece."""
    total_ns: int
    """Of the program's threads, pieces and the rest."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Truth:
        """Reads what `to_json` wrote. Raises ValueError for anything else."""
        try:
            values = json.loads(text)
            return cls({name: Spent(*spent) for name, spent in values["pieces"].items()}, int(values["total_ns"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no truth: {text[:100]!r}") from error


class Stage:
    """Runs actors for some seconds, as a context manager.

    The threads that it needs are there for the whole `with` block, asleep before and after `run`: how a sampler takes
    the end of a thread is another matter than the ones measured here, and so is the beginning, unless `late`.
    """

    def __init__(self, actors: Sequence[Actor], seconds: float, *, late: bool = False, waits: bool = True) -> None:
        """A single actor runs on the thread that calls `run`, several on threads of their own.

        `late`: these threads begin with `run`. `waits`: they may wait for something, if only for the GIL.
        """
        self._waits = waits
        self._actors = actors
        self._seconds = seconds
        self._late = late
        self._go, self._leave = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._done: list[threading.Event] = []
        self._clocks: list[Clock] = []
        self._totals: list[int] = []

    def __enter__(self) -> Self:
        if not self._late:
            self._start_threads()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._go.set()
        self._leave.set()
        for thread in self._threads:
            thread.join()

    def run(self) -> Truth:
        """Returns when all actors have done their part. Raises RuntimeError when one of them did not."""
        before = time.thread_time_ns()
        if len(self._actors) == 1:
            self._act(self._actors[0])
        else:
            if self._late:
                self._start_threads()
            self._go.set()
            give_up = time.monotonic() + self._seconds + _END_SECONDS
            for done in self._done:
                done.wait(max(0.0, give_up - time.monotonic()))
        if len(self._totals) != len(self._actors):
            raise RuntimeError(f"{len(self._actors) - len(self._totals)} actors of the program did not end")
        # The calling thread counts as well: a profiler may think that it works while it waits.
        own = time.thread_time_ns() - before
        return Truth(self._pieces(), own + (sum(self._totals) if self._threads else 0))

    def _start_threads(self) -> None:
        if len(self._actors) == 1:
            return
        for number, actor in enumerate(self._actors):
            done = threading.Event()
            thread = threading.Thread(target=self._run_thread, args=(actor, done), name=f"actor-{number}", daemon=True)
            self._done.append(done)
            self._threads.append(thread)
            thread.start()

    def _run_thread(self, actor: Actor, done: threading.Event) -> None:
        self._go.wait()
        try:
            self._act(actor)
        finally:
            done.set()
        self._leave.wait()

    def _act(self, actor: Actor) -> None:
        on_core = None if self._waits else TimeOnCore()
        clock = Clock(self._seconds, read=on_core or time.thread_time_ns)
        actor(clock)
        self._clocks.append(clock)
        self._totals.append(clock.total_ns())
        if on_core is not None:
            on_core.close()

    def _pieces(self) -> dict[str, Spent]:
        sums: dict[str, Spent] = {}
        for clock in self._clocks:
            for piece, spent in clock.pieces().items():
                before = sums.get(piece, Spent(0, 0))
                sums[piece] = Spent(before.cpu_ns + spent.cpu_ns, before.times + spent.times)
        return sums


def size_per_ms(part: Part, probe: int) -> float:
    """How big the work of a part may be to take a millisecond of CPU here, from doing it at the size `probe`."""
    fastest = min(_taken_ms(part, probe) for _ in range(7))
    return probe / max(fastest, 1e-6)


def _taken_ms(part: Part, size: int) -> float:
    clock = Clock(0.0)
    part(clock, size)
    return clock.total_ns() / 1e6
