"""The tortured process: `python -m torture.run`, started by `torture.__main__`, which notices when it dies or hangs."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import profiling_middleware
from profiling_middleware.config import Settings
from profiling_middleware.profiler import Profiler
from profiling_middleware.sampling import native as native_module
from torture.captures import (
    PROFILES,
    TRACES,
    captures,
    check_waiting,
    install,
    stop_checking,
    wait_for_all_checks,
    wait_for_checks,
)
from torture.checker import Checker
from torture.families import Families
from torture.resources import Memory, Usage, settled, usage
from torture.shared import spin
from torture.stage import Stage, Work, ended
from torture.storm import Storm
from torture.truth import Truth
from torture.variants import MEANT
from torture.works import WORKS
from torture.works.labels import Subject
from torture.works.signals import on_alarm

_END_SECONDS = 60.0
_RESTARTS = 1000
_QUIET_ROUNDS, _A_ROUND = 6, 50
_MOST_BLOCKS_KEPT = 0.8
_MOST_NONES_LESS = 2_000


def main() -> int:
    arguments = _arguments()
    if Path(os.environ[MEANT]) != Path(profiling_middleware.__file__).parent:
        sys.exit(f"{profiling_middleware.__file__} was to be that in {os.environ[MEANT]}")
    faulthandler.enable()
    os.environ.pop("LD_PRELOAD", None)  # other programs are started here
    warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads is what is tried here
    sys.setrecursionlimit(10_000)
    sys.setswitchinterval(0.0005)
    with tempfile.TemporaryDirectory() as directory:
        return Run(arguments, Path(directory).resolve()).run()


class Run:
    """A warm-up, the storm, 1,000 starts and stops, and what is left then."""

    def __init__(self, arguments: argparse.Namespace, directory: Path) -> None:
        self._arguments = arguments
        self._directory = directory
        self._stage = self._new_stage()
        self._checker = Checker(Truth(directory), self._stage.native_ids)
        install(self._checker)
        self._settings = Settings(engine=arguments.engine, sample_rate=1000, max_overhead=1.0)
        self._profiler = Profiler(self._settings)
        self._storm = Storm(native_module._native)
        native_module._native = self._storm  # type: ignore[assignment]
        self._memory = Memory()
        self._nones = sys.getrefcount(None)
        Families.shared(directory, 24)

    def run(self) -> int:
        checking = threading.Thread(target=check_waiting, kwargs={"forever": True}, name="checking")
        checking.start()
        try:
            before, after, kept = self._run()
        finally:
            stop_checking()
            checking.join()
        return self._report(before, after, kept)

    def _run(self) -> tuple[Usage, Usage, float]:
        seconds = self._arguments.seconds
        signal.signal(signal.SIGALRM, on_alarm)
        # What traces take for a moment comes and goes: no memory is told by it.
        self._rush(seconds * 0.2, Memory(), TRACES + PROFILES)
        self._restart(20)
        before = settled(usage(), 1.0)
        self._rush(seconds * 0.65, self._memory, PROFILES)
        self._restart_in_a_rush(_RESTARTS)
        kept = self._restart_in_quiet(_QUIET_ROUNDS)
        return before, settled(before, 10.0), kept

    def _new_stage(self) -> Stage:
        return Stage(seed=self._arguments.seed, directory=self._directory, engine=self._arguments.engine)

    def _rush(self, seconds: float, memory: Memory, kinds: tuple[tuple[str, ...], ...]) -> None:
        """All works at once, and captures beginning and ending all the time."""
        stage = self._begin()
        threads = self._start_works(stage)
        recorder = threading.Thread(target=captures, args=(stage, self._profiler, kinds), name="recorder")
        recorder.start()
        random, families, until = stage.random("main"), Families.shared(self._directory), time.monotonic() + seconds
        signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
        noted = 0.0
        while time.monotonic() < until and not self._is_over(stage):
            families.call_some(random, 5)
            time.sleep(0.002)
            if time.monotonic() - noted > 0.5:
                noted = time.monotonic()
                memory.note()
                self._storm.rages = not self._arguments.calm and random.random() < 0.5
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._storm.rages = False
        self._end(stage, [*threads, recorder])

    def _is_over(self, stage: Stage) -> bool:
        return bool(stage.failures) or (self._arguments.first_failure and bool(self._checker.wrong))

    def _restart_in_a_rush(self, times: int) -> None:
        """Beginnings and ends of the engine beside threads that run, are born and die."""
        stage = self._begin()
        threads = self._start_works(stage, ("calls", "churn", "codes", "labels", "foreign"))
        self._storm.rages = not self._arguments.calm
        self._restart(times)
        self._storm.rages = False
        self._end(stage, threads)

    def _restart_in_quiet(self, rounds: int) -> float:
        """How many blocks of memory a start and a stop keep, when nothing else happens meanwhile.

        The least of several rounds: whatever is learnt once is not kept each time.
        """
        kept = []
        for _ in range(rounds):
            gc.collect()
            before = sys.getallocatedblocks()
            self._restart(_A_ROUND)
            gc.collect()
            kept.append((sys.getallocatedblocks() - before) / _A_ROUND)
        return min(kept)

    def _restart(self, times: int) -> None:
        for number in range(times):
            if self._is_over(self._stage):
                return
            recording = self._profiler.record("wall" if number % 3 == 0 else "cpu", 0.001, upload=False)
            spin(1_000)
            recording.result.result(_END_SECONDS)
            wait_for_checks()
            self._stage.done["starts and stops"] += 1

    def _begin(self) -> Stage:
        wait_for_all_checks()
        stage = self._new_stage()
        stage.done, stage.failures, stage.native_ids = self._stage.done, self._stage.failures, self._stage.native_ids
        return stage

    def _start_works(self, stage: Stage, names: tuple[str, ...] = ()) -> list[threading.Thread]:
        chosen: dict[Work, int] = {
            work: count
            for work, count in WORKS.items()
            if work.__name__ in (names or self._arguments.works or [work.__name__])
        }
        return [stage.start(work, number=number) for work, count in chosen.items() for number in range(count)]

    def _end(self, stage: Stage, threads: list[threading.Thread]) -> None:
        stage.stopped.set()
        if left := ended(threads, _END_SECONDS):
            faulthandler.dump_traceback()
            stage.fail(f"did not end within {_END_SECONDS:g} s: {', '.join(left)}")

    def _report(self, before: Usage, after: Usage, kept: float) -> int:
        checker, failures = self._checker, list(dict.fromkeys(self._stage.failures))
        print("done:", ", ".join(f"{count} {name}" for name, count in sorted(self._stage.done.items())))
        print("seen:", ", ".join(f"{count} {name}" for name, count in sorted(checker.seen.items())))
        print(
            f"checked: {checker.profiles} profiles, {checker.samples} samples, {checker.stacks} stacks; "
            f"labelled work: {checker.labelled[True]} with its label, {checker.labelled[False]} with none"
        )
        print(
            f"memory: {self._memory.last / 2**20:.1f} MiB, {self._memory.slope() / 1024:+.1f} KiB/s; {kept:+.2f} blocks a start"
        )
        if checker.wrong:
            failures.append(f"wrong:\n{checker.report()}")
        if left := _more(before, after):
            failures.append(f"left behind: {left}")
        if self._memory.slope() > self._arguments.most_growth * 1024:
            failures.append("memory grows")
        if (subjects := Subject.left()) > 0:
            failures.append(f"{subjects} labels were kept")
        if kept > _MOST_BLOCKS_KEPT:
            failures.append("starts and stops keep memory")
        if (nones := self._nones - sys.getrefcount(None)) > _MOST_NONES_LESS:
            failures.append(f"{nones} references to None were given back that nobody had")
        failures += [f"never seen: {name}" for name in self._missing()]
        for failure in failures:
            print("FAILED:", failure)
        return 1 if failures else 0

    def _missing(self) -> list[str]:
        """Works of which no profile showed anything: a check that sees nothing would say nothing."""
        if self._arguments.works:
            return []
        stems = {work.__module__.rpartition(".")[2] for work in WORKS} | {"family", "imported", "made"}
        return sorted(stem for stem in stems if not self._checker.seen[stem])


def _more(before: Usage, after: Usage) -> str:
    """What there is more than before: what has gone since was about to."""
    changes = [f"+ {thing}" for thing in (*(after.threads - before.threads), *(after.descriptors - before.descriptors))]
    if after.timers > before.timers:
        changes.append(f"{after.timers - before.timers:+d} timers")
    return ", ".join(changes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torture.run")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--engine", choices=("native", "polling"), default="native")
    parser.add_argument("--calm", action="store_true", help="only the signals the engine itself asks for")
    parser.add_argument("--first-failure", action="store_true", help="end with the first thing that is wrong")
    parser.add_argument("--works", nargs="*", help="only these")
    parser.add_argument("--most-growth", type=float, default=40.0, help="KiB a second of resident memory")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
