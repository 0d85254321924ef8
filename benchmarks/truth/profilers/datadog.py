"""ddtrace's profiler, writing to files: as delivered, and held at its fastest."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.truth.profilers.base import Profiler, Seen, without_module
from benchmarks.truth.profilers.pprof import all_of
from sample_app.pprof_reader import read_pprof

_ZSTD = b"\x28\xb5\x2f\xfd"
_ENVIRONMENT = {
    # Nothing but the profiler, and nobody is to be called.
    "DD_TRACE_ENABLED": "0",
    "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "0",
    "DD_REMOTE_CONFIGURATION_ENABLED": "0",
    "DD_CRASHTRACKING_ENABLED": "0",
}


def ddtrace(name: str, *, adaptive: bool) -> Profiler:
    """`adaptive`: it samples more rarely to stay below 1 % of the process's CPU time, which is how it is delivered."""
    return Profiler(
        name=name,
        missing=_missing,
        recording=lambda directory, rate, seconds: _recording(directory, rate, adaptive),
        read=_read,
        own=("/ddtrace/",),
    )


def _missing() -> str | None:
    return without_module("ddtrace")() or without_module("zstandard")()


@contextmanager
def _recording(directory: Path, rate: int, adaptive: bool) -> Iterator[None]:
    # It reads them when it is imported; so a process has one directory and one mode.
    os.environ.update(
        _ENVIRONMENT,
        DD_PROFILING_OUTPUT_PPROF=str(directory / "ddtrace"),
        _DD_PROFILING_STACK_ADAPTIVE_SAMPLING_ENABLED=str(int(adaptive)),
    )
    profiler = importlib.import_module("ddtrace.profiling").Profiler()
    profiler.start()
    if not adaptive:
        importlib.import_module("ddtrace.internal.datadog.profiling.stack").set_interval(1 / rate)
    yield
    profiler.stop()


def _read(directory: Path) -> list[Seen]:
    files = sorted(directory.glob("ddtrace.*.pprof"))
    return all_of((read_pprof(_unpacked(file.read_bytes())) for file in files), "cpu-time", "cpu-samples")


def _unpacked(body: bytes) -> bytes:
    if not body.startswith(_ZSTD):
        return body
    unpacked: bytes = importlib.import_module("zstandard").ZstdDecompressor().decompressobj().decompress(body)
    return unpacked
