"""What is loaded and started when; each in a fresh interpreter."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RunPython = Callable[..., subprocess.CompletedProcess[str]]

HEAVY = ("boto3", "botocore", "pyinstrument", "starlette.applications", "starlette.requests", "urllib3", "numpy")

LOADED = f"""
import sys
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print("heavy:", *heavy)
"""
THREADS = """
import threading
print("threads:", *(thread.name for thread in threading.enumerate()))
"""


def output(ran: subprocess.CompletedProcess[str]) -> str:
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


@pytest.mark.parametrize("name", ["ProfilingMiddleware", "WSGIProfilingMiddleware", "Profiler", "Settings"])
def test_a_public_name_loads_nothing_heavy(run_python: RunPython, name: str) -> None:
    assert output(run_python(f"import profiling_middleware; profiling_middleware.{name}\n{LOADED}")) == "heavy:\n"


def test_the_package_itself_loads_none_of_its_parts(run_python: RunPython) -> None:
    program = """
import sys, profiling_middleware
print(sorted(name for name in sys.modules if name.startswith("profiling_middleware.")))
"""
    assert output(run_python(program)) == "[]\n"


@pytest.mark.parametrize("name", ["ProfilingMiddleware", "WSGIProfilingMiddleware"])
def test_a_middleware_that_is_off_loads_no_part_of_the_profiler(run_python: RunPython, name: str) -> None:
    program = f"""
import sys
from profiling_middleware import {name}
{name}(None)
parts = ("captures", "encoders", "pipeline", "profiler", "sampling", "stores", "timer", "uploads", "middleware.admin")
print("parts:", *(part for part in parts if f"profiling_middleware.{{part}}" in sys.modules))
{THREADS}
"""
    assert output(run_python(program)) == "parts:\nthreads: MainThread\n"


@pytest.mark.parametrize("name", ["ProfilingMiddleware", "WSGIProfilingMiddleware"])
def test_a_middleware_that_is_off_touches_nothing_of_the_process(run_python: RunPython, name: str) -> None:
    program = f"""
import atexit, os, signal, sys, threading
registered = []
def note(*arguments, **more):
    by = sys._getframe(1).f_globals["__name__"]
    if by.startswith("profiling_middleware"):
        registered.append(by)
os.register_at_fork = atexit.register = note
before = (signal.getsignal(signal.SIGTERM), sys.getswitchinterval(), threading.Thread.start, sys.gettrace())
from profiling_middleware import {name}
{name}(None)
after = (signal.getsignal(signal.SIGTERM), sys.getswitchinterval(), threading.Thread.start, sys.gettrace())
print(before == after, registered)
"""
    assert output(run_python(program)) == "True []\n"


@pytest.mark.parametrize("name", ["ProfilingMiddleware", "WSGIProfilingMiddleware"])
def test_constructing_a_middleware_that_is_on_starts_no_thread(
    run_python: RunPython, tmp_path: Path, name: str
) -> None:
    program = f"from profiling_middleware import {name}; {name}(None)\n{THREADS}{LOADED}"
    variables = {"PROFILE_ENABLED": "1", "PROFILE_STORE": tmp_path.as_uri(), "PROFILE_SERVICE_NAME": "watcher"}

    assert output(run_python(program, **variables)) == "threads: MainThread\nheavy:\n"


def test_a_profiler_that_captures_loads_neither_boto3_nor_pyinstrument_for_a_directory(
    run_python: RunPython, tmp_path: Path
) -> None:
    program = f"""
from profiling_middleware import Profiler
with Profiler() as profiler:
    profiler.capture("cpu", 0.05)
{LOADED}"""

    variables = {"PROFILE_STORE": tmp_path.as_uri(), "PROFILE_SERVICE_NAME": "watcher", "PROFILE_TYPES": "cpu,wall"}

    assert output(run_python(program, PROFILE_ENABLED="1", **variables)) == "heavy:\n"


def test_a_bad_setting_stops_the_service_at_its_start(run_python: RunPython) -> None:
    ran = run_python(
        "from profiling_middleware import WSGIProfilingMiddleware; WSGIProfilingMiddleware(None)",
        PROFILE_INTERVAL="soon",
    )

    assert ran.returncode == 1
    assert "PROFILE_INTERVAL (interval) = 'soon' is not a duration" in ran.stderr


def test_a_name_that_is_not_public_is_an_attribute_error(run_python: RunPython) -> None:
    program = """
import profiling_middleware
try:
    profiling_middleware.Flamegraph
except AttributeError as error:
    print(error)
print(sorted(profiling_middleware.__all__))
"""
    assert output(run_python(program)) == (
        "module 'profiling_middleware' has no attribute 'Flamegraph'\n"
        "['Profiler', 'ProfilingMiddleware', 'Settings', 'WSGIProfilingMiddleware']\n"
    )


def test_star_import_gives_the_public_names(run_python: RunPython) -> None:
    program = "from profiling_middleware import *; print(Profiler.__name__, Settings.__name__)"

    assert output(run_python(program)) == "Profiler Settings\n"
