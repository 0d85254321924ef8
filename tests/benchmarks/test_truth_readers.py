"""What the profilers leave, read: counts, lines and which CPU time is the profiler's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.truth.profilers import PROFILERS
from benchmarks.truth.profilers.base import Seen
from benchmarks.truth.profilers.pprof import seen_in
from sample_app.pprof_reader import Frame, PprofError, Profile, Sample, ValueType

PROGRAM = Frame("heavy", "/x/benchmarks/truth/programs/loops.py", 30)


def profile(period: int) -> Profile:
    return Profile(
        sample_types=(ValueType("samples", "count"), ValueType("cpu", "nanoseconds")),
        samples=(Sample((PROGRAM,), (3, 40_000_000), {}), Sample((PROGRAM,), (5, 0), {})),
        comments=(),
        period_type=None,
        period=period,
        time_ns=0,
        duration_ns=0,
        default_sample_type="cpu",
    )


def test_samples_are_counted_or_reckoned_from_the_period_and_waits_are_none() -> None:
    assert list(seen_in(profile(0), "cpu", "samples")) == [Seen((PROGRAM,), 40_000_000.0, 3.0)]
    assert list(seen_in(profile(10_000_000), "cpu", None)) == [Seen((PROGRAM,), 40_000_000.0, 4.0)]
    with pytest.raises(PprofError):
        list(seen_in(profile(0), "cpu", None))


def test_py_spy_counts_looks_from_the_root(tmp_path: Path) -> None:
    (tmp_path / "py-spy.rate").write_text("100")
    (tmp_path / "py-spy.raw").write_text("<module> (/x/a b.py:3);heavy (/x/loops.py:30) 25\n")

    assert PROFILERS["py-spy"].read(tmp_path) == [
        Seen((Frame("heavy", "/x/loops.py", 30), Frame("<module>", "/x/a b.py", 3)), 250_000_000.0, 25)
    ]


def test_pyinstrument_keeps_lines_as_attributes(tmp_path: Path) -> None:
    stack = ["MainThread\x00<thread>\x001", "heavy\x00/x/loops.py\x0028\x01l30"]
    (tmp_path / "pyinstrument.json").write_text(json.dumps({"frame_records": [[stack, 0.25]]}))

    assert PROFILERS["pyinstrument"].read(tmp_path) == [
        Seen((Frame("heavy", "/x/loops.py", 30), Frame("MainThread", "<thread>", 1)), 250_000_000.0, 1)
    ]


def test_a_profiler_below_the_program_does_not_make_it_its_own() -> None:
    ddtrace = PROFILERS["ddtrace"]
    itself = Frame("flush", "/lib/site-packages/ddtrace/profiling/scheduler.py", 50)

    assert ddtrace.is_own([itself])
    assert not ddtrace.is_own([PROGRAM, itself])
    assert not ddtrace.is_own([Frame("wait", "/lib/threading.py", 1)])
    assert PROFILERS["python"].is_own([Frame("<profiling_middleware sampling>", "", 0)])
    assert not PROFILERS["python"].is_own([Frame("<not seen running>", "", 0)])
