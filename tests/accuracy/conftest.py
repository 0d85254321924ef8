"""Threads whose CPU time is known, and captures taken of them on the thread that tests."""

from __future__ import annotations

import _thread
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# With --import-mode=importlib pytest adds no folder of tests to the path.
sys.path.insert(0, str(Path(__file__).parent))

from profiling_middleware.captures import CAPTURES, Capture
from profiling_middleware.captures.sources import Sources
from profiling_middleware.config import Settings
from profiling_middleware.model import CaptureInfo, Profile
from profiling_middleware.sampling import make_engine
from profiling_middleware.sampling.engine import Engine

DEADLINE = 60.0
"""Seconds that anything may take; reaching it is a failure, not a pause."""


class Worker:
    """A thread that does one thing after another when told to, and says what its own clock says of each."""

    def __init__(self, *, known_to_threading: bool = True) -> None:
        self._tasks: list[Callable[[], object]] = []
        self._told = threading.Semaphore(0)
        self._did = threading.Semaphore(0)
        self._ready = threading.Event()
        self.ended = threading.Event()
        self.ident = self.native_id = 0
        self.used_ns: list[int] = []
        """CPU time of each task, by `time.thread_time`."""
        if known_to_threading:
            threading.Thread(target=self._run, name="worker", daemon=True).start()
        else:
            _thread.start_new_thread(self._run, ())
        assert self._ready.wait(DEADLINE)

    def tell(self, task: Callable[[], object]) -> None:
        """Starts a task; `wait` returns once it is done."""
        self._tasks.append(task)
        self._told.release()

    def wait(self, seconds: float = DEADLINE) -> bool:
        """Whether one more task has been done within `seconds`."""
        return self._did.acquire(timeout=seconds)

    def do(self, task: Callable[[], object]) -> None:
        """Returns once the task is done and the thread is at rest again."""
        self.tell(task)
        assert self.wait()
        self.rest()

    def rest(self) -> None:
        """Returns once the thread's clock stands still: it waits for its next task."""
        clock, before = (~self.native_id << 3) | 6, -1
        while (now := time.clock_gettime_ns(clock)) != before:
            before = now
            time.sleep(0.05)

    def end(self) -> None:
        """Ends the thread and returns once the system has forgotten it."""
        self.tell(_end)
        assert self.ended.wait(DEADLINE)
        give_up = time.monotonic() + DEADLINE
        while _has_clock(self.native_id):
            assert time.monotonic() < give_up
            time.sleep(0.001)

    def _run(self) -> None:
        self.ident, self.native_id = threading.get_ident(), threading.get_native_id()
        self._ready.set()
        while self._told.acquire(timeout=DEADLINE):
            task = self._tasks.pop(0)
            if task is _end:
                break
            before = time.thread_time_ns()
            task()
            self.used_ns.append(time.thread_time_ns() - before)
            self._did.release()
        self.ended.set()


def _end() -> None:
    """The last task: known by its identity, never called."""


def _has_clock(native_id: int) -> bool:
    try:
        time.clock_gettime_ns((~native_id << 3) | 6)
    except OSError:
        return False
    return True


class Taken:
    """A profile, read by thread, function and line."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def total(
        self, native_id: int | None = None, function: str = "", *, lines: range | None = None, placed: bool = False
    ) -> int:
        """Nanoseconds of one thread, or all, under any frame whose function's name contains `function`.

        With `placed` only where a function was seen, not a frame in angle brackets below one.
        """
        return sum(
            sample.values[1]
            for sample in self.profile.samples
            if not (placed and sample.stack.frames[0].function.startswith("<"))
            and native_id in (None, *(label.value for label in sample.labels if label.key == "thread_id"))
            and any(
                function in frame.function and (lines is None or frame.line in lines) for frame in sample.stack.frames
            )
        )

    @property
    def not_placed(self) -> int:
        """Nanoseconds under frames that stand for no function, the sampling's own apart."""
        return sum(
            sample.values[1]
            for sample in self.profile.samples
            if sample.stack.frames[0].function.startswith("<")
            and "sampling" not in sample.stack.frames[0].function
            and "without Python" not in sample.stack.frames[0].function
        )


class Camera:
    """Takes captures as the timer's thread does, on the thread that calls."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def begin(self, kind: str) -> Capture:
        capture = CAPTURES[kind](Sources(self.engine), 10.0)
        capture.begin()
        return capture

    def look_until(self, done: Callable[[float], bool]) -> None:
        """Looks until `done`, which is given the seconds to wait between two looks."""
        give_up = time.monotonic() + DEADLINE
        while not done(self.engine.look()):
            assert time.monotonic() < give_up

    def end(self, capture: Capture) -> Taken:
        info = CaptureInfo(
            kind="cpu",
            service="accuracy",
            instance="here",
            capture_id="0123456789abcdef",
            started_ns=time.time_ns(),
            trigger="on demand",
        )
        return Taken(capture.end(info))


OpenCamera = Callable[..., Camera]


@pytest.fixture(scope="module")
def open_camera(need_native: Callable[[], None]) -> Iterator[OpenCamera]:
    """Makes a camera with the engine of a name; skips where that is not to be had."""
    made: list[Engine] = []

    def open_(name: str, *, sample_rate: int = 100) -> Camera:
        if name in ("native", "polling"):
            need_native()
        made.append(make_engine(Settings(engine=name, max_overhead=1.0, sample_rate=sample_rate)))  # type: ignore[arg-type]
        return Camera(made[-1])

    yield open_
    for engine in made:
        engine.close()


@pytest.fixture(scope="module", params=["native", "polling", "python"])
def module_camera(request: pytest.FixtureRequest, open_camera: OpenCamera) -> Camera:
    """Each of the engines in turn, for all tests of a module."""
    return open_camera(request.param)


@pytest.fixture(params=["native", "polling", "python"])
def camera(request: pytest.FixtureRequest, open_camera: OpenCamera) -> Iterator[Camera]:
    """Each of the engines in turn."""
    camera = open_camera(request.param)
    yield camera
    camera.engine.close()


@pytest.fixture(scope="module")
def make_worker() -> Iterator[Callable[..., Worker]]:
    """Makes a Worker; all of them end with the module."""
    made: list[Worker] = []

    def make(**options: bool) -> Worker:
        made.append(Worker(**options))
        return made[-1]

    yield make
    for worker in made:
        if not worker.ended.is_set():
            worker.end()
