"""google-cloud-profiler: its CPU profiler in C++, called as its agent calls it, without the agent and the cloud."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.truth.profilers.base import Profiler, Seen, without_module
from benchmarks.truth.profilers.pprof import all_of
from sample_app.pprof_reader import read_pprof

_FILE = "google.pprof.gz"


@contextmanager
def _recording(directory: Path, rate: int, seconds: float) -> Iterator[None]:
    # It profiles for a time given beforehand, on the thread that calls.
    profiler = importlib.import_module("googlecloudprofiler.cpu_profiler").CPUProfiler(period_ms=round(1000 / rate))
    thread = threading.Thread(target=_profile, args=(profiler, directory, seconds), name="google", daemon=True)
    thread.start()
    yield
    thread.join(seconds + 30)


def _profile(profiler: object, directory: Path, seconds: float) -> None:
    body: bytes = profiler.profile(int(seconds * 1e9))  # type: ignore[attr-defined]
    Path(directory, _FILE).write_bytes(body)


def _read(directory: Path) -> list[Seen]:
    return all_of([read_pprof(Path(directory, _FILE).read_bytes())], "CPU", "sample")


GOOGLE = Profiler(
    name="google",
    missing=without_module("googlecloudprofiler._profiler"),
    recording=_recording,
    read=_read,
    own=("/googlecloudprofiler/",),
)
