"""Captures that begin and end at random, and what their profiles say."""

from __future__ import annotations

import gzip
import itertools
import time
from concurrent.futures import Future
from queue import Queue

from profiling_middleware import parts
from profiling_middleware.model import Profile, Trace
from profiling_middleware.pipeline import Pipeline, Request, Result
from profiling_middleware.profiler import Profiler
from profiling_middleware.recording import CaptureCancelled, Recording, TooManyCaptures
from sample_app.pprof_reader import read_pprof
from torture.checker import Checker
from torture.stage import Stage

_ENCODED = 20
"""Of so many profiles one is encoded as well, read again, and compared."""
_SECONDS = 60.0
PROFILES: tuple[tuple[str, ...], ...] = (("cpu",), ("wall",), ("cpu", "wall"), ("block", "mutex"), ("cpu", "block"))
TRACES: tuple[tuple[str, ...], ...] = (("trace",), ("cpu", "trace"), ("wall", "block", "mutex", "trace"))
_MOST_WAITING = 16

_numbers = itertools.count(1)


class CheckedPipeline(Pipeline):
    """Checks what goes into the pipeline; encoding everything would be most of the work."""

    checker: Checker
    waiting: Queue[Profile | None]

    def submit(
        self, profile: Profile | Trace, request: Request, result: Future[Result]
    ) -> None:  # called by the library
        if isinstance(profile, Trace):
            result.add_done_callback(lambda done: _check_trace(self.checker, done))
            super().submit(profile, request, result)
            return
        # Not here: this is the timer's thread, and beginnings and ends of captures would wait.
        self.waiting.put(profile)
        if next(_numbers) % _ENCODED == 0:
            result.add_done_callback(lambda done: _compare(self.checker, profile, done))
            super().submit(profile, request, result)
        else:
            result.set_result(None)  # type: ignore[arg-type]


def install(checker: Checker) -> None:
    """From now on each profile of this process is for `check_waiting`."""
    CheckedPipeline.checker = checker
    CheckedPipeline.waiting = Queue()
    parts.Pipeline = CheckedPipeline  # type: ignore[misc]


def check_waiting(*, forever: bool = False) -> None:  # called by the library
    """Checks what waits; `forever` until a None does."""
    queue = CheckedPipeline.waiting
    while forever or not queue.empty():
        profile = queue.get()
        if profile is not None:
            CheckedPipeline.checker.check(profile)
        queue.task_done()
        if profile is None:
            return


def wait_for_checks() -> None:
    """Returns when not much waits: what does is memory that seems to be lost."""
    while CheckedPipeline.waiting.qsize() > _MOST_WAITING:
        time.sleep(0.01)


def wait_for_all_checks() -> None:
    """Returns when nothing waits: threads of the same names are to begin, with other numbers."""
    CheckedPipeline.waiting.join()


def stop_checking() -> None:
    """Ends `check_waiting(forever=True)` once it has done everything."""
    CheckedPipeline.waiting.put(None)


def _compare(checker: Checker, profile: Profile, done: Future[Result]) -> None:
    if done.exception() is not None:
        checker.note("not encoded", str(done.exception()))
        return
    read = read_pprof(done.result().artifact.body)
    said = [tuple((frame.function, frame.file, frame.line) for frame in sample.stack) for sample in read.samples]
    meant = [tuple(frame[:3] for frame in sample.stack.frames) for sample in profile.samples]
    if sorted(said) != sorted(meant):
        checker.note("encoded as something else", f"{len(said)} samples, {len(meant)} meant")


def _check_trace(checker: Checker, done: Future[Result]) -> None:
    if done.exception() is not None:
        checker.note("no trace", str(done.exception()))
    elif not gzip.decompress(done.result().artifact.read()):
        checker.note("an empty trace", done.result().artifact.key)


def captures(stage: Stage, profiler: Profiler, kinds: tuple[tuple[str, ...], ...]) -> None:  # called by the library
    """Up to eight at once, of these kinds, mostly overlapping; some are ended early, some cancelled, sometimes none runs."""
    random = stage.random("captures")
    running: list[Recording] = []
    while not stage.wait(random.choice((0.0, 0.05, 0.3))):
        wait_for_checks()
        if random.random() < 0.05:
            finish(stage, running)
            stage.done["pauses without a capture"] += 1
        for kind in random.choice(kinds):
            seconds, full = random.choice((0.05, 0.5, 2.0)), kind == "trace" and random.random() < 0.5
            try:
                running.append(profiler.record(kind, seconds, upload=False, full=full))
                stage.done[f"captures ({kind})"] += 1
            except TooManyCaptures:
                stage.wait(0.1)
        if running and random.random() < 0.2:
            random.choice((Recording.cancel, lambda recording: recording.end_early("chance")))(random.choice(running))
        running = [recording for recording in running if not answered(stage, recording, 0)]
    finish(stage, running)


def finish(stage: Stage, running: list[Recording]) -> None:
    """Waits for all of them."""
    for recording in running:
        if not answered(stage, recording, _SECONDS):
            stage.fail("a capture did not end")
    running.clear()


def answered(stage: Stage, recording: Recording, seconds: float) -> bool:
    """Whether it has ended, as it should."""
    if not recording.result.done() and not seconds:
        return False
    try:
        recording.result.result(seconds)
    except CaptureCancelled:
        stage.done["captures cancelled"] += 1
    except TimeoutError:
        return False
    except Exception as error:
        stage.fail(f"a capture failed: {error!r}")
    return True
