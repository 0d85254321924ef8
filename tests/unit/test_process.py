"""SIGTERM and exit, each in a fresh interpreter with a store in a directory."""

from __future__ import annotations

import gzip
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from profiling_middleware.process import Process

RunPython = Callable[..., subprocess.CompletedProcess[str]]
Run = Callable[[str], subprocess.CompletedProcess[str]]

BEGIN = """
import os, signal, sys, threading, time
from pathlib import Path
from profiling_middleware import Profiler, Settings

def the_work_of_the_service(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))

def wait_until_the_window_is_open():
    # Captures begin one after the other: when this one has ended, the window before it has begun.
    profiler.record("cpu", 0.01, upload=False).result.result(20)

def terminate():
    os.kill(os.getpid(), signal.SIGTERM)

def wait_to_die():
    threading.Event().wait(20)
    print("survived")

settings = Settings(enabled=True, types=("cpu",), service_name="watcher", store=Path(sys.argv[1]).as_uri())
profiler = Profiler(settings)
"""


@pytest.fixture
def run(run_python: RunPython, tmp_path: Path) -> Run:
    """Runs a program that begins with a profiler for `<tmp_path>/store`."""

    def run_program(program: str) -> subprocess.CompletedProcess[str]:
        return run_python(BEGIN + program, str(tmp_path / "store"))

    return run_program


def stored(root: Path) -> list[bytes]:
    return [gzip.decompress(path.read_bytes()) for path in sorted(root.rglob("*.gz"))]


def test_a_service_without_a_handler_dies_of_sigterm_after_its_window_was_stored(run: Run, tmp_path: Path) -> None:
    ran = run(
        """
profiler.start()
wait_until_the_window_is_open()
the_work_of_the_service(0.1)
terminate()
wait_to_die()
"""
    )

    (window,) = stored(tmp_path / "store")
    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGTERM, "", "")
    assert b"partial: " in window
    assert b"the_work_of_the_service" in window


def test_a_second_sigterm_while_the_window_goes_out_kills_no_sooner(run: Run, tmp_path: Path) -> None:
    ran = run(
        """
profiler.start()
the_work_of_the_service(0.1)
for _ in range(5):
    terminate()
wait_to_die()
"""
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGTERM, "", "")
    assert len(stored(tmp_path / "store")) == 1


def test_the_services_own_handler_still_runs_and_decides(run: Run, tmp_path: Path) -> None:
    ran = run(
        """
def own(number, frame):
    print("own handler", number, frame is not None)

signal.signal(signal.SIGTERM, own)
profiler.start()
terminate()
print("still here")
profiler.stop()
print(signal.getsignal(signal.SIGTERM) is own)
"""
    )

    assert ran.stdout == f"own handler {signal.SIGTERM:d} True\nstill here\nTrue\n"
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(stored(tmp_path / "store")) == 1


def test_a_handler_that_exits_stores_the_window_on_its_way_out(run: Run, tmp_path: Path) -> None:
    ran = run(
        """
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))
profiler.start()
the_work_of_the_service(0.1)
terminate()
wait_to_die()
"""
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "", "")
    assert len(stored(tmp_path / "store")) == 1


def test_sigterm_ends_a_capture_that_somebody_waits_for(run: Run, tmp_path: Path) -> None:
    ran = run(
        """
signal.signal(signal.SIGTERM, lambda number, frame: None)
profiler.start()
threading.Timer(0.1, terminate).start()
since = time.monotonic()
profiler.capture("cpu", 60)
print(time.monotonic() - since < 10)
profiler.stop()
"""
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "True\n", "")
    assert any(b"on demand" in window and b"partial: SIGTERM" in window for window in stored(tmp_path / "store"))


def test_a_service_that_ignores_sigterm_goes_on_ignoring_it(run: Run, tmp_path: Path) -> None:
    ran = run(
        """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
profiler.start()
print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
terminate()
print("still here", profiler.started)
profiler.stop()
print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
"""
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "True\nstill here True\nTrue\n", "")


def test_a_handler_that_is_set_later_is_chained_at_the_next_start(run: Run, tmp_path: Path) -> None:
    """As servers do, which set theirs after the application was loaded."""
    ran = run(
        """
profiler.start()
signal.signal(signal.SIGTERM, lambda number, frame: print("the server's handler"))
profiler.start()
profiler.start()
threading.Timer(0.1, terminate).start()
profiler.capture("cpu", 60)
profiler.stop()
"""
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "the server's handler\n", "")


def test_a_profiler_that_is_stopped_puts_the_default_back(run: Run, tmp_path: Path) -> None:
    ran = run(
        """
profiler.start()
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
profiler.stop()
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
terminate()
wait_to_die()
"""
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGTERM, "False\nTrue\n", "")


def test_a_profiler_that_starts_on_another_thread_hears_sigterm_too(run: Run, tmp_path: Path) -> None:
    ran = run(
        """
starter = threading.Thread(target=profiler.start)
starter.start()
starter.join()
the_work_of_the_service(0.1)
terminate()
wait_to_die()
"""
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGTERM, "", "")
    assert len(stored(tmp_path / "store")) == 1


def test_sigterm_while_locks_are_held_everywhere_stores_the_window(run: Run, tmp_path: Path) -> None:
    """The handler interrupts the main thread inside the profiler itself, over and over."""
    ran = run(
        """
profiler.start()
threading.Timer(0.2, terminate).start()
until = time.monotonic() + 20
while time.monotonic() < until:
    profiler.record("cpu", 0.001).result.result(20)
print("survived")
"""
    )

    assert (ran.returncode, ran.stdout) == (-signal.SIGTERM, "")
    assert any(b"periodic" in window for window in stored(tmp_path / "store"))


def test_profilers_that_start_on_many_threads_at_once_crash_nothing(run: Run) -> None:
    ran = run(
        """
from profiling_middleware.process import Process

signal.signal(signal.SIGTERM, lambda number, frame: None)
sys.setswitchinterval(1e-6)
processes = []
for _ in range(200):
    process = Process()
    processes.append(process)
    together = threading.Barrier(8)
    starters = [threading.Thread(target=lambda: (together.wait(), process.notice_sigterm())) for _ in range(8)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
print("alive")
"""
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "alive\n", "")


# -- exit -------------------------------------------------------------------------------------------------------------


def test_a_script_that_ends_without_stop_stores_its_window(run: Run, tmp_path: Path) -> None:
    ran = run("profiler.start()\nthe_work_of_the_service(0.1)\n")

    (window,) = stored(tmp_path / "store")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert b"partial: the service stopped" in window


def test_a_script_that_fails_stores_its_window_and_fails_the_same(run: Run, tmp_path: Path) -> None:
    ran = run("with profiler:\n    the_work_of_the_service(0.1)\n    sys.exit(7)\n")

    assert (ran.returncode, ran.stdout, ran.stderr) == (7, "", "")
    assert len(stored(tmp_path / "store")) == 1


def test_exit_does_not_wait_when_there_is_nothing_to_do(run: Run) -> None:
    ran = run(
        """
import atexit
began = time.monotonic()
atexit.register(lambda: print(time.monotonic() - began < 2))  # runs after what is registered later
profiler.capture("cpu", 0.02)
"""
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "True\n", "")


# -- without signals --------------------------------------------------------------------------------------------------


class Tenant:
    """A resident that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def before_fork(self) -> None:
        self.told.append("before_fork")

    def after_fork_in_parent(self) -> None:
        self.told.append("after_fork_in_parent")

    def after_fork_in_child(self) -> None:
        self.told.append("after_fork_in_child")

    def on_sigterm(self) -> None:
        self.told.append("on_sigterm")

    def stop(self) -> None:
        self.told.append("stop")


def test_one_process_has_one_resident() -> None:
    process, tenant = Process(), Tenant()
    process._hooked = True  # fork hooks cannot be taken back
    process.settle(tenant)
    process.settle(tenant)

    with pytest.raises(RuntimeError, match="another Profiler runs in this process: stop it first"):
        process.settle(Tenant())

    process.leave(Tenant())
    assert process.resident is tenant
    process.leave(tenant)
    assert process.resident is None
    process.settle(Tenant())


def test_no_file_is_read_in_the_locales_encoding(run_python: RunPython, tmp_path: Path) -> None:
    """`-X warn_default_encoding` is how others find such places in their own programs."""
    ran = run_python(
        """
import sys
from profiling_middleware import Profiler, Settings

for engine in sys.argv[2:]:
    with Profiler(Settings(service_name="watcher", engine=engine, store=sys.argv[1])) as profiler:
        profiler.capture("cpu", 0.05)
        profiler.capture("wall", 0.05)
""",
        (tmp_path / "store").as_uri(),
        "auto",
        "python",
        options=("-X", "warn_default_encoding"),
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


# -- what fails within ---------------------------------------------------------------------------------------------


def test_where_no_thread_can_be_started_any_more_sigterm_still_ends_the_service(run: Run) -> None:
    ran = run(
        """
from profiling_middleware.threads import OwnThread
def start(thread):
    raise RuntimeError("can't start new thread")
profiler.start()
OwnThread.start = start
terminate()
wait_to_die()
"""
    )

    assert (ran.returncode, ran.stdout) == (-signal.SIGTERM, "")


def test_a_profiler_that_fails_at_sigterm_keeps_it_from_nobody(run: Run) -> None:
    ran = run(
        """
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
profiler.start()
profiler.on_sigterm = lambda: 1 / 0
terminate()
print(told)
"""
    )

    assert (ran.returncode, ran.stdout) == (0, "[1]\n")


def test_a_start_that_hangs_does_not_keep_the_service_from_ending(run: Run) -> None:
    ran = run(
        """
begun, never = threading.Event(), threading.Event()
def start():
    with profiler._lock:
        begun.set()
        never.wait()
threading.Thread(target=start, daemon=True).start()
begun.wait()
began = time.monotonic()
profiler.stop(0.2)
print(time.monotonic() - began < 5)
"""
    )

    assert (ran.returncode, ran.stdout) == (0, "True\n")


def test_there_is_one_of_a_kind_in_a_process() -> None:
    process = Process()
    one = process.only(dict)
    assert process.only(dict) is one
    assert process.only(list) is not one
    assert Process().only(dict) is not one
