"""The profilers that can be measured: the project's own engines and its peers."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.truth.profilers.base import Profiler
from benchmarks.truth.profilers.datadog import ddtrace
from benchmarks.truth.profilers.google import GOOGLE
from benchmarks.truth.profilers.own import own_engine
from benchmarks.truth.profilers.py_spy import PY_SPY
from benchmarks.truth.profilers.pyinstrument_session import PYINSTRUMENT
from benchmarks.truth.profilers.pyroscope_io import pyroscope

PROFILERS: Mapping[str, Profiler] = {
    profiler.name: profiler
    for profiler in (
        own_engine("native"),
        own_engine("polling"),
        own_engine("python"),
        GOOGLE,
        pyroscope("pyroscope", "PySpy"),
        pyroscope("pyroscope-stack", "Stack"),
        ddtrace("ddtrace", adaptive=True),
        ddtrace("ddtrace-fixed", adaptive=False),
        PY_SPY,
        PYINSTRUMENT,
    )
}
