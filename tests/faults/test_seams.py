"""Whatever fails inside the profiler, the application answers as without it: a part of `scripts/full --seams`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_seams(*options: str, package: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The program, with the package that lies in a folder."""
    paths = (package, ROOT / "tests", ROOT / "tests" / "integration")
    return subprocess.run(
        [sys.executable, "-P", "-m", "faults.seams", *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.timeout(300)
def test_no_failure_within_the_profiler_reaches_the_application() -> None:
    """One run each of all functions on the way of requests, and of 40 others; the output has the seed."""
    ran = run_seams("--sample", "40", "--jobs", "6")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " 0 failed" in ran.stdout


def test_a_guard_that_is_missing_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "profiling_middleware", tmp_path / "profiling_middleware")
    middleware = tmp_path / "profiling_middleware" / "middleware" / "asgi.py"
    guarded = "token = CURRENT.set(make(Served.labels, served))\n            except Exception as error:"
    text = middleware.read_text()
    assert text.count(guarded) == 1
    middleware.write_text(text.replace(guarded, guarded.replace("Exception", "ZeroDivisionError")))

    ran = run_seams("--only", "tracing.requests:RequestSpans.begin", package=tmp_path)

    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "FAILED profiling_middleware.tracing.requests:RequestSpans.begin raises always (all kinds): " in ran.stdout
