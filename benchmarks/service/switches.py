"""What can be switched on in a process: the project's captures, a peer, or something whose cost is known."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.service.bare_thread import Bare
from profiling_middleware import Settings
from profiling_middleware.units import parse_duration
from sample_app.pprof_reader import read_pprof

if TYPE_CHECKING:
    from profiling_middleware.recording import Recording

# As long as a periodic window: a capture looks the oftener at who waits the shorter it is. A slice ends it before.
_WINDOW_SECONDS = 120.0
# The one works in a process of its own, the other has to be started on the thread that it watches.
_NOT_HERE = ("py-spy", "pyinstrument")
_COST = re.compile(r"cost of taking: (\S+) CPU,")


class Switch(Protocol):
    """Something that is on between `on` and `off`, as often as one likes."""

    def on(self, seconds: float) -> None:
        """Returns when it is on. It will be switched off after about so many seconds."""

    def off(self) -> float | None:
        """Returns when nothing of it is left running: its own CPU time, if it knows, as a share of a core."""


def make_switch(name: str, rate: int, settings: Settings) -> Switch:
    """By name, `rate` being samples and wake-ups a second. ValueError for a name that says nothing here.

    `capture cpu+wall` takes these kinds with a profiler of these settings, and `capture nothing` none; `bare` is a
    thread that only wakes, `burner 0.02` one that burns so much of a core; anything else is a peer.
    """
    what, _, argument = name.partition(" ")
    if what == "capture":
        return _Captures(settings, argument.split("+"))
    if what == "bare":
        return _BareSwitch(rate)
    if what == "burner":
        return _Burner(rate, float(argument))
    return _Peer(name, rate)


class _Captures:
    def __init__(self, settings: Settings, kinds: Sequence[str]) -> None:
        # Loaded when it is needed first, as the middleware does it: it is part of what profiling takes of memory.
        from benchmarks.truth.profilers import own
        from profiling_middleware.profiler import Profiler

        self._own = own
        # The one that a middleware in this process has as well.
        self._profiler = Profiler.shared(settings)
        self._kinds = kinds
        self._recordings: list[Recording] = []

    def on(self, seconds: float) -> None:
        if self._kinds != ["nothing"]:
            self._recordings = self._own.begin(self._profiler, self._kinds, _WINDOW_SECONDS)

    def off(self) -> float | None:
        if not self._recordings:
            return None
        # One engine looks for all of them, so each says the cost of all; of traces another program reads it.
        bodies = self._own.end(self._recordings)
        profiles = [body for kind, body in zip(self._kinds, bodies, strict=True) if not kind.startswith("trace")]
        if not profiles:
            return None
        profile = read_pprof(profiles[0])
        costs = [parse_duration(match[1]) for comment in profile.comments if (match := _COST.match(comment))]
        return costs[0] / (profile.duration_ns / 1e9) if costs else None


class _Peer:
    def __init__(self, name: str, rate: int) -> None:
        from benchmarks.truth.profilers import PROFILERS

        if name not in PROFILERS or name in _NOT_HERE:
            raise ValueError(f"there is nothing named {name!r} to switch on")
        self._profiler, self._rate = PROFILERS[name], rate
        # One for the whole process: some read their settings once.
        self._directory = tempfile.TemporaryDirectory(prefix="switched-")
        self._running = ExitStack()

    def on(self, seconds: float) -> None:
        self._running.enter_context(self._profiler.recording(Path(self._directory.name), self._rate, seconds))

    def off(self) -> float | None:
        self._running.close()
        return None


class _BareSwitch:
    def __init__(self, rate: int) -> None:
        self._bare = Bare(rate)
        self._began = 0.0

    def on(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._bare.start()

    def off(self) -> float | None:
        return self._bare.stop() / 1e9 / (time.monotonic() - self._began)


class _Burner:
    """Known to cost something: whatever measures costs has to find it."""

    def __init__(self, rate: int, share: float) -> None:
        self._rate, self._share = rate, share
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._used = 0.0

    def on(self, seconds: float) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._burn, name="burner", daemon=True)
        self._thread.start()

    def off(self) -> float | None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        return self._used

    def _burn(self) -> None:
        began, used = time.monotonic(), time.thread_time()
        while not self._stop.wait(1 / self._rate):
            while time.thread_time() - used < self._share * (time.monotonic() - began):
                sum(range(200))
        self._used = (time.thread_time() - used) / (time.monotonic() - began)
