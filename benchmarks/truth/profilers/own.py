"""profiling_middleware's own engines."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import profiling_middleware
from benchmarks.truth.profilers.base import Profiler, Seen
from benchmarks.truth.profilers.pprof import all_of
from profiling_middleware import Settings
from profiling_middleware.config import EngineName, SettingsError
from profiling_middleware.profiler import Profiler as OwnProfiler
from profiling_middleware.recording import Recording
from sample_app.pprof_reader import read_pprof

_FILE = "cpu.pprof.gz"
_BEGIN_SECONDS = 10.0
_RESULT_SECONDS = 60.0


def own_engine(engine: str) -> Profiler:
    """One of the engines, with everything else as delivered."""
    return Profiler(
        name=engine,
        missing=lambda: _missing(engine),
        recording=lambda directory, rate, seconds: _recording(engine, directory, rate, seconds),
        read=_read,
        own=(f"{Path(profiling_middleware.__file__).parent}/", "<profiling_middleware"),
    )


def _settings(engine: str, rate: int) -> Settings:
    return Settings(engine=cast(EngineName, engine), sample_rate=rate, max_seconds=86_400, service_name="benchmark")


def begin(profiler: OwnProfiler, kinds: Iterable[str], seconds: float) -> list[Recording]:
    """Captures of these kinds at once, once they have begun. Raises RuntimeError when they do not.

    `trace` has the detail of a periodic window, `trace-full` everything.
    """
    recordings = [
        profiler.record(kind.removesuffix("-full"), seconds, upload=False, full=kind.endswith("-full"))
        for kind in kinds
    ]
    give_up = time.monotonic() + _BEGIN_SECONDS
    while any(each.end_call is None for each in recordings):
        if time.monotonic() > give_up or any(each.result.done() for each in recordings):
            raise RuntimeError("a capture did not begin")
        time.sleep(0.001)
    return recordings


def end(recordings: Sequence[Recording]) -> list[bytes]:
    """Ends them now; the gzipped pprof of each."""
    for each in recordings:
        each.end_early("the benchmark is over")
    return [each.result.result(_RESULT_SECONDS).artifact.read() for each in recordings]


@contextmanager
def _recording(engine: str, directory: Path, rate: int, seconds: float) -> Iterator[None]:
    profiler = OwnProfiler(_settings(engine, rate))
    recordings = begin(profiler, ("cpu",), seconds)
    yield
    Path(directory, _FILE).write_bytes(end(recordings)[0])
    profiler.stop()


def _missing(engine: str) -> str | None:
    try:
        OwnProfiler(_settings(engine, 100))
    except SettingsError as error:
        return str(error)
    return None


def _read(directory: Path) -> list[Seen]:
    return all_of([read_pprof(Path(directory, _FILE).read_bytes())], "cpu", "samples")
