"""Builders, a clock and a store that the unit tests share."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import profiling_middleware
from profiling_middleware.last_failures import Failure
from profiling_middleware.model import (
    Artifact,
    CaptureInfo,
    Frame,
    Label,
    Profile,
    ProfileSample,
    Stack,
    ValueType,
)
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.sampling import why_not_native
from profiling_middleware.status import EngineStatus, Status, WaitingStatus
from profiling_middleware.stores import KeyTaken
from profiling_middleware.upload_counts import StoredCapture, UploadCounts

DEADLINE = 10.0
"""Seconds that anything may take; reaching it is a failure, not a pause."""

hypothesis.settings.register_profile("unit", deadline=None, database=None, derandomize=True)
hypothesis.settings.load_profile("unit")


@pytest.fixture
def deadline() -> float:
    """Seconds to wait at most for what must happen."""
    return DEADLINE


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """After every test: no thread of the profiler, no resident, no signal handler, the usual switch interval."""
    handler, interval = signal.getsignal(signal.SIGTERM), sys.getswitchinterval()
    yield
    THIS_PROCESS.renounce()
    assert THIS_PROCESS.resident is None
    assert signal.getsignal(signal.SIGTERM) is handler
    for thread in threading.enumerate():
        if thread.name.startswith("profiling-"):
            thread.join(DEADLINE)
            assert not thread.is_alive(), f"{thread.name} still runs"
    assert sys.getswitchinterval() == interval


@pytest.fixture
def without_extension(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the C extension had not been built."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "profiling_middleware.sampling._native", None)
        why_not_native.cache_clear()
        yield
    why_not_native.cache_clear()


@pytest.fixture
def logger(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    """The package's own logger; what it says is in `caplog`."""
    caplog.set_level(logging.DEBUG, "profiling_middleware")
    return logging.getLogger("profiling_middleware")


class FakeClock:
    """A clock that stands still until it is set."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_info() -> Callable[..., CaptureInfo]:
    """A capture's description, with anything in it replaced by name."""

    def make(**changes: Any) -> CaptureInfo:
        values: dict[str, Any] = {
            "kind": "cpu",
            "service": "watcher",
            "instance": "web-1-7-0a1b2c3d",
            "capture_id": "0123456789abcdef",
            "started_ns": 1_769_441_400_000_000_000,  # 2026-01-26 15:30:00 UTC, as in the key examples
            "trigger": "periodic",
        }
        return CaptureInfo(**(values | changes))

    return make


@pytest.fixture
def make_profile(make_info: Callable[..., CaptureInfo]) -> Callable[..., Profile]:
    """A small CPU profile of two stacks in two threads, with anything in it replaced by name."""

    def make(**changes: Any) -> Profile:
        main, handle = Frame("app.main", "/srv/app.py", 90, 80), Frame("shop.cart.Cart.total", "/srv/shop.py", 12, 10)
        thread = (Label("thread", "MainThread"), Label("thread_id", 4711, "id"))
        worker = (Label("thread", "worker-1"), Label("thread_id", 4712, "id"))
        values: dict[str, Any] = {
            "info": make_info(),
            "sample_types": (ValueType("samples", "count"), ValueType("cpu", "nanoseconds")),
            "period_type": ValueType("cpu", "nanoseconds"),
            "period": 10_000_000,
            "duration_ns": 120_000_000_000,
            "samples": [
                ProfileSample(Stack((handle, main)), thread, (3, 30_000_000)),
                ProfileSample(Stack((main,)), worker, (1, 10_000_000)),
            ],
            "comments": ("service: watcher", "engine: python"),
        }
        return Profile(**(values | changes))

    return make


@pytest.fixture
def make_artifact(make_info: Callable[..., CaptureInfo]) -> Callable[..., Artifact]:
    """An artifact of `size` bytes; `number` makes its key, its capture id and its time differ."""

    def make(number: int = 0, size: int = 10, **changes: Any) -> Artifact:
        info = make_info(capture_id=f"{number:016x}", started_ns=1_769_441_400_000_000_000 + number * 10**9)
        values: dict[str, Any] = {
            "info": info,
            "key": f"profiles/watcher/cpu/{number}.pprof.gz",
            "own_key": f"profiles/watcher/cpu/{number}_own.pprof.gz",
            "body": bytes([number % 256]) * size,
        }
        return Artifact(**(values | changes))

    return make


class MemoryStore:
    """A store in memory that never replaces anything and can be told to refuse or to hang."""

    place = "memory://store"

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.changed = threading.Condition()
        self.warmed_up = threading.Event()
        self.refusals: list[Exception | None] = []
        """What the next puts raise, one after the other; None lets one pass."""
        self.refused_keys: dict[str, Exception] = {}
        self.warm_up_failure: Exception | None = None
        self.answers_get_lost = False
        self.open = threading.Event()
        """Cleared, every put waits until it is set."""
        self.open.set()

    def warm_up(self) -> None:
        self.warmed_up.set()
        if self.warm_up_failure is not None:
            raise self.warm_up_failure

    def put(self, key: str, body: bytes, info: CaptureInfo) -> None:
        with self.changed:
            self.asked.append(key)
            self.changed.notify_all()
        assert self.open.wait(DEADLINE)
        refusal = self.refusals.pop(0) if self.refusals else None
        refusal = refusal or self.refused_keys.get(key)
        with self.changed:
            if refusal is not None and not self.answers_get_lost:
                raise refusal
            if key in self.content:
                raise KeyTaken(key)
            self.content[key] = body
            self.changed.notify_all()
        if refusal is not None:
            raise refusal

    def wait_for_puts(self, count: int) -> None:
        """Returns once `count` puts have begun."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= count, DEADLINE), self.asked


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    store = MemoryStore()
    yield store
    store.open.set()


RunPython = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_python(tmp_path: Path) -> RunPython:
    """Runs a program in a fresh interpreter, warnings being errors; without PROFILE_ variables but those given.

    Where there is no native engine each of the `processes` that begin a profiler of their own says so once, which is
    left out of what it said.
    """
    reason = why_not_native()
    said_once = f"profiling: the portable engine is used, which is less exact: {reason}\n"

    def run(program: str, *arguments: str, options: tuple[str, ...] = (), processes: int = 1, **variables: str) -> Any:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PROFILE_", "OTEL_"))}
        packages = str(Path(profiling_middleware.__file__).parent.parent)
        ran = subprocess.run(
            [sys.executable, "-W", "error", *options, "-c", program, *arguments],
            env={**clean, "PYTHONPATH": packages, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
        )
        if reason is not None:
            ran.stderr = ran.stderr.replace(said_once, "", processes)
        return ran

    return run


@pytest.fixture
def make_status() -> Callable[..., Status]:
    """The state of a profiler that has something to tell everywhere, with anything in it replaced by name."""

    def make(**changes: Any) -> Status:
        values: dict[str, Any] = {
            "service": "checkout",
            "instance": "web-1-7-0a1b2c3d",
            "enabled": True,
            "kinds": ("cpu", "wall"),
            "interval": 300.0,
            "duration": 120.0,
            "store": "s3://stl-debugging-prod",
            "next_window": 41.6,
            "missed_windows": 6,
            "running_captures": 2,
            "failed_captures": 5,
            "limits_met": {"captures at once": 2, "uploads an hour": 1},
            "uploads": UploadCounts(
                taken=7,
                adopted=1,
                stored=3,
                stored_bytes=49_357,
                failures=2,
                dropped=1,
                last_stored=(
                    StoredCapture(key="the/last/key", kind="cpu", size=2048, stored_ns=1_769_441_400_250_000_000),
                ),
            ),
            "waiting": WaitingStatus(
                captures=4,
                size=2048,
                place="/var/spool/checkout",
                spooled=3,
                spooled_size=1024,
                spool_trouble="No space left on device",
            ),
            "last_failures": (Failure(what="upload", reason="no network", times=2, last_ns=1_769_441_401_000_000_000),),
            "engine": EngineStatus(
                name="python",
                why_not_native="the C extension was not built",
                interval=0.02,
                cpu_seconds=1.25,
                cpu_share=0.004,
                max_share=0.01,
            ),
        }
        return Status(**(values | changes))

    return make
