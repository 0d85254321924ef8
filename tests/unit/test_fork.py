"""Forks, each in a fresh interpreter."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RunPython = Callable[..., subprocess.CompletedProcess[str]]

BEGIN = """
import os, sys, threading, time, warnings
from pathlib import Path
from profiling_middleware import Profiler, Settings
from profiling_middleware.process import THIS_PROCESS

def the_work_of_the_service(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))

def wait_until_the_window_is_open():
    # Captures begin one after the other: when this one has ended, the window before it has begun.
    profiler.record("cpu", 0.01, upload=False).result.result(20)

def threads():
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("profiling-"))

def child(work):
    '''Runs `work` in a forked child and returns the words it gives back; the child ends without clean-up.'''
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.write(writing, str(work()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as answers:
        answer = answers.read()
    assert os.waitpid(process, 0)[1] == 0
    return answer

on = Settings(enabled=True, types=("cpu",), service_name="watcher", store=Path(sys.argv[1]).as_uri())
off = Settings(service_name="watcher", store=Path(sys.argv[1]).as_uri())
# A test of its own is about this warning.
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
"""


Run = Callable[..., str]


@pytest.fixture
def run(run_python: RunPython, tmp_path: Path) -> Run:
    """Runs a program that begins with the helpers above; what it prints."""

    def run_program(program: str, *, processes: int = 1) -> str:
        ran = run_python(BEGIN + program, str(tmp_path / "store"), processes=processes)
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout

    return run_program


def stored(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): gzip.decompress(path.read_bytes()) for path in sorted(root.rglob("*.gz"))}


def test_a_child_is_another_instance_and_the_parent_stays_the_same(run: Run) -> None:
    output = run(
        """
with Profiler(on) as profiler:
    before = profiler.instance
    instance = child(lambda: profiler.instance)
    print(instance != before, str(os.getpid()) in before, str(os.getpid()) in instance, profiler.instance == before)
"""
    )

    assert output == "True True False True\n"


def test_a_child_has_windows_of_its_own_and_the_parents_go_on(run: Run, tmp_path: Path) -> None:
    output = run(
        """
def in_child():
    wait_until_the_window_is_open()
    the_work_of_the_service(0.1)
    profiler.stop()
    return "done"

with Profiler(on) as profiler:
    wait_until_the_window_is_open()
    the_work_of_the_service(0.1)
    print(child(in_child))
    the_work_of_the_service(0.1)
"""
    )

    windows = stored(tmp_path / "store")
    instances = {re.findall(rb"instance: (\S+-\d+-[0-9a-f]{8})", body)[0] for body in windows.values()}
    assert output == "done\n"
    assert len(windows) == 2
    assert len(instances) == 2
    assert all(b"the_work_of_the_service" in body for body in windows.values())
    assert any(b"in_child" in body for body in windows.values())


def test_the_work_of_a_child_is_seen_in_the_function_that_does_it(run: Run) -> None:
    output = run(
        """
import json

def in_child():
    profiler.capture("cpu", 0.01)  # an engine takes a moment to be made
    recording = profiler.record("cpu", 60, view="speedscope")
    the_work_of_the_service(0.2)
    recording.end_early("enough")
    file = json.loads(recording.result.result(20).view)
    names = [frame["name"] for frame in file["shared"]["frames"]]
    seconds, opened = {}, {}
    for event in file["profiles"][0]["events"]:
        name = names[event["frame"]]
        if event["type"] == "O":
            opened[name] = event["at"]
        else:
            seconds[name] = seconds.get(name, 0) + event["at"] - opened[name]
    profiler.stop()
    # The native engine knows modules by their files, and this program has none.
    work = sum(seconds.get(module + "the_work_of_the_service", 0) for module in ("", "__main__."))
    return work > 0.8 * seconds["watcher cpu"] > 0.1 or seconds

profiler = Profiler(off)
print(child(in_child))
profiler.stop()
"""
    )

    assert output == "True\n"


def test_a_child_does_not_say_again_what_its_parent_has_warned_of(run_python: RunPython, tmp_path: Path) -> None:
    ran = run_python(
        BEGIN
        + """
unnamed = Settings(enabled=True, types=("cpu", "wall"), engine="python", store=on.store)
with Profiler(unnamed) as profiler:
    print(child(lambda: profiler.started))
""",
        str(tmp_path / "store"),
    )

    assert (ran.returncode, ran.stdout) == (0, "True\n")
    assert [line.split(":")[1] for line in ran.stderr.splitlines()] == [
        " the service has no name and is stored as python-service",
    ]


def test_a_child_stores_nothing_of_its_parent(run: Run, tmp_path: Path) -> None:
    run(
        """
def work_of_the_parent_before():
    the_work_of_the_service(0.2)

def in_child():
    wait_until_the_window_is_open()
    the_work_of_the_service(0.1)
    profiler.stop()

with Profiler(on) as profiler:
    wait_until_the_window_is_open()
    work_of_the_parent_before()
    child(in_child)
"""
    )

    of_child = [body for body in stored(tmp_path / "store").values() if b"in_child" in body]
    assert len(of_child) == 1
    assert b"work_of_the_parent_before" not in of_child[0]


def test_a_parent_that_is_off_has_children_without_threads(run: Run) -> None:
    output = run(
        """
with Profiler(off) as profiler:
    print(child(threads))
profiler = Profiler(off)
profiler.capture("cpu", 0.02)
print(child(threads), child(lambda: profiler.instance) != profiler.instance)
profiler.stop()
"""
    )

    assert output == "[]\n[] True\n"


def test_a_child_of_a_parent_that_captured_on_demand_can_capture_too(run: Run, tmp_path: Path) -> None:
    output = run(
        """
def in_child():
    artifact = profiler.capture("cpu", 0.1)
    profiler.stop()
    return artifact.key

profiler = Profiler(off)
running = profiler.record("cpu", 60)
key = child(in_child)
print(Path(sys.argv[1], key).exists(), running.result.done())
running.end_early("enough")
running.result.result(10)
profiler.stop()
"""
    )

    assert output == "True False\n"
    assert len(stored(tmp_path / "store")) == 2


def test_a_capture_of_the_parent_goes_on_over_many_forks_with_the_right_times(run: Run, tmp_path: Path) -> None:
    output = run(
        """
import json
profiler = Profiler(off)
profiler.capture("cpu", 0.01)  # an engine takes a moment to be made
running = profiler.record("cpu", 60, view="speedscope")
before = time.process_time()
for _ in range(10):
    the_work_of_the_service(0.03)
    child(lambda: None)
used = time.process_time() - before
running.end_early("enough")
evented = json.loads(running.result.result(20).view)["profiles"][0]
total = max(event["at"] for event in evented["events"])
print(0.85 * used <= total <= 1.1 * used + 0.02 or (used, total))
profiler.stop()
"""
    )

    assert output == "True\n"


def test_no_profile_says_that_it_cost_less_than_nothing(run: Run, tmp_path: Path) -> None:
    """A fork ends the timer's thread and begins another one, often with the same ident and a clock that is behind."""
    run(
        """
with Profiler(on) as profiler:
    for _ in range(5):
        the_work_of_the_service(0.05)
        child(lambda: None)
"""
    )

    (body,) = stored(tmp_path / "store").values()
    (milliseconds,) = re.findall(rb"cost of taking: (-?[0-9.]+)ms CPU", body)
    assert float(milliseconds) > 0


def test_a_worker_that_is_forked_before_the_profiler_was_loaded_has_one_too(run: Run) -> None:
    """As a pre-forking server's, when a first request came before the fork."""
    output = run(
        """
from profiling_middleware import WSGIProfilingMiddleware

app = WSGIProfilingMiddleware(lambda environ, start_response: [], settings=on)

def in_child():
    give_up = time.monotonic() + 8
    while time.monotonic() < give_up and not getattr(THIS_PROCESS.resident, "started", False):
        time.sleep(0.01)
    started = getattr(THIS_PROCESS.resident, "started", False)
    if started:
        THIS_PROCESS.resident.stop()
    return started

app({"PATH_INFO": "/orders"}, None)
print(child(in_child))
""",
        processes=2,
    )

    assert output == "True\n"


def test_a_fork_from_another_thread_is_survived(run: Run, tmp_path: Path) -> None:
    output = run(
        """
def in_child():
    the_work_of_the_service(0.1)
    profiler.stop()
    return "done"

with Profiler(on) as profiler:
    worker = threading.Thread(target=lambda: print(child(in_child)))
    worker.start()
    worker.join()
"""
    )

    assert output == "done\n"
    assert len(stored(tmp_path / "store")) == 2


def test_a_fork_while_captures_begin_and_end_everywhere_hangs_nobody(run: Run) -> None:
    output = run(
        """
def in_child():
    artifact = profiler.capture("cpu", 0.01)
    return len(artifact.body) > 0

with Profiler(on) as profiler:
    finished = threading.Event()
    def captures():
        while not finished.is_set():
            profiler.capture("wall", 0.001)
    workers = [threading.Thread(target=captures) for _ in range(3)]
    for worker in workers:
        worker.start()
    print({child(in_child) for _ in range(15)})
    finished.set()
    for worker in workers:
        worker.join()
"""
    )

    assert output == "{'True'}\n"


def test_a_fork_while_a_thread_of_the_profiler_imports_leaves_no_module_locked_in_the_child(run: Run) -> None:
    """A module that is being imported is locked; in a child the thread that would unlock it does not exist."""
    output = run(
        """
import contextlib, importlib, signal

class Slow:
    # Takes its time over what a thread of the profiler imports, as a busy machine does.
    names, begun, open = [], threading.Event(), threading.Event()

    def find_spec(self, name, path=None, target=None):
        if threading.current_thread().name.startswith("profiling-") and not self.open.is_set():
            self.names.append(name)
            self.begun.set()
            self.open.wait(0.01)

slow = Slow()
sys.meta_path.insert(0, slow)

def in_child():
    slow.open.set()
    signal.alarm(3)  # kills a child that hangs
    for name in slow.names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    return "imported"

profiler = Profiler(off)
recording = profiler.record("cpu", 0.01, view="html")
forks = 0
while not recording.result.done():
    if slow.begun.wait(0.01) and forks < 8:
        slow.begun.clear()
        forks += 1
        child(in_child)
    elif forks >= 8:
        slow.open.set()
recording.result.result(60)
profiler.stop()
print("no module is locked")
"""
    )

    assert output == "no module is locked\n"


def test_a_fork_takes_no_longer_than_its_bound_when_the_profiler_is_busy(run: Run) -> None:
    output = run(
        """
with Profiler(on) as profiler:
    hang = threading.Event()
    profiler._parts.timer.call_soon(lambda: hang.wait(20))
    since = time.monotonic()
    child(lambda: None)
    print(time.monotonic() - since < 2)
    hang.set()
"""
    )

    assert output == "True\n"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python warns since 3.12")
@pytest.mark.skipif(
    (3, 13) <= sys.version_info < (3, 13, 10) or (3, 14) <= sys.version_info < (3, 14, 1),
    reason="this Python counts the threads that go on after the fork, too: github.com/python/cpython/issues/137109",
)
def test_forking_warns_of_no_threads_when_only_the_profiler_has_some(run: Run) -> None:
    output = run(
        """
with Profiler(on) as profiler:
    print(len(threads()) > 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(50):
            the_work_of_the_service(0.002)
            child(lambda: None)
    print(len(caught), *{str(warning.message) for warning in caught})
"""
    )

    assert output == "True\n0\n"


def test_the_parents_threads_are_back_after_a_fork(run: Run) -> None:
    output = run(
        """
with Profiler(on) as profiler:
    before = threads()
    child(lambda: None)
    print(before == threads(), "profiling-timer" in before)
"""
    )

    assert output == "True True\n"


def test_multiprocessing_children_end_in_order(run: Run, tmp_path: Path) -> None:
    output = run(
        """
import multiprocessing

def job(number):
    the_work_of_the_service(0.02)
    return number * number

with Profiler(on) as profiler:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(job, range(4)))
"""
    )

    assert output == "[0, 1, 4, 9]\n"


def test_a_child_of_a_program_without_a_handler_dies_of_sigterm_at_once(run: Run) -> None:
    """A handler in Python runs once a system call ends: a child that is just beginning one would not die."""
    output = run(
        """
import signal

with Profiler(on) as profiler:
    print(child(lambda: (signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, profiler.started)))
    print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""
    )

    assert output == "(True, True)\nFalse\n"


def test_a_child_that_gets_sigterm_before_it_has_begun_dies_of_it(run: Run) -> None:
    """As multiprocessing ends workers that it has just made. Python forgets what came before a child's hooks ran."""
    output = run(
        """
import signal

def before_the_profilers_hook():
    blocked.append(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    if terminates:
        os.kill(os.getpid(), signal.SIGTERM)

blocked, terminates = [], False
os.register_at_fork(after_in_child=before_the_profilers_hook)
with Profiler(on) as profiler:
    print(child(lambda: (blocked, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
    terminates = True
    process = os.fork()
    if process == 0:
        print("goes on", flush=True)
        os._exit(3)
    print(os.waitpid(process, 0)[1] == signal.SIGTERM, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
    )

    assert output == "([True], set())\nTrue set()\n"


def test_a_child_of_a_thread_that_has_sigterm_blocked_has_it_blocked_too(run: Run, tmp_path: Path) -> None:
    output = run(
        """
import signal

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with Profiler(on) as profiler:
    print(child(lambda: signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    print(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
    )

    assert output == "True\nTrue\n"


def test_a_child_of_a_program_with_a_handler_has_it_too(run: Run, tmp_path: Path) -> None:
    output = run(
        """
import signal

heard = []
signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))

def in_child():
    recording = profiler.record("cpu", 60)
    os.kill(os.getpid(), signal.SIGTERM)
    recording.result.result(20)
    return heard == [signal.SIGTERM]

with Profiler(on) as profiler:
    print(child(in_child), heard)
"""
    )

    assert output == "True []\n"


def test_a_child_of_a_profiler_that_was_switched_on_is_on_and_has_windows_of_its_own(run: Run, tmp_path: Path) -> None:
    output = run(
        """
import dataclasses

def in_child():
    profiler.record("cpu", 0.01, upload=False).result.result(20)
    state = profiler.enabled, profiler.started, profiler.status.running_captures
    profiler.stop()
    return state

profiler = Profiler(dataclasses.replace(off, types=("cpu",)))
profiler.enable()
print(child(in_child), profiler.enabled)
profiler.stop()
"""
    )

    assert output == "(True, True, 1) True\n"
    assert len(stored(tmp_path / "store")) == 2


def test_a_child_of_a_profiler_that_was_switched_off_is_off_and_can_be_switched_on(run: Run, tmp_path: Path) -> None:
    output = run(
        """
def in_child():
    before = profiler.enabled, profiler.status.next_window, profiler.label_maker, threads()
    profiler.enable()
    after = profiler.enabled, profiler.status.running_captures
    profiler.stop()
    return before, after

with Profiler(on) as profiler:
    profiler.disable()
    print(child(in_child), profiler.enabled)
"""
    )

    assert output == "((False, None, None, []), (True, 1)) False\n"
    assert len(stored(tmp_path / "store")) == 2


def test_a_child_that_is_forked_while_another_thread_switches_can_be_switched(run: Run) -> None:
    output = run(
        """
import dataclasses

stop = threading.Event()

def switch():
    while not stop.is_set():
        profiler.enable()
        profiler.disable()
        wait_until_the_window_is_open()  # and is encoded: they would come faster than that

def in_child():
    profiler.disable()
    profiler.enable()
    state = profiler.enabled, profiler.status.running_captures
    profiler.stop()
    return state

profiler = Profiler(dataclasses.replace(off, types=("cpu",)))
profiler.enable()
switcher = threading.Thread(target=switch)
switcher.start()
print({child(in_child) for _ in range(5)})
stop.set()
switcher.join()
profiler.stop()
"""
    )

    assert output == "{'(True, 1)'}\n"


def test_a_child_does_not_wait_for_what_a_thread_of_the_parent_was_doing_to_traces(run: Run) -> None:
    said = run(
        """
import dataclasses, signal
profiler = Profiler(dataclasses.replace(on, types=("trace",)))
profiler.start()
wait_until_the_window_is_open()
lane, held, go_on = profiler._parts.trace_lane, threading.Event(), threading.Event()
def hold():
    with lane._changed:
        held.set()
        go_on.wait()
lane.pause = lane.resume = lambda *_: None  # a busy machine: the thread was not gone in time
holder = threading.Thread(target=hold)
holder.start()
held.wait()
process = os.fork()
if process == 0:
    os._exit(7)
deadline = time.monotonic() + 10
while (ended := os.waitpid(process, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
    time.sleep(0.01)
if ended[0] == 0:
    os.kill(process, signal.SIGKILL)
go_on.set()
holder.join()
print(ended[1])
del lane.pause, lane.resume
profiler.stop()
"""
    )

    assert said == f"{7 << 8}\n"


def test_a_child_listens_for_itself_and_holds_nothing_of_its_parent(run: Run) -> None:
    output = run(
        """
import re

def sockets():
    # Those of this process that are bound to a name: on which it listens.
    table = Path("/proc/net/unix").read_text()
    inodes = {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if name != "0"
              and os.path.lexists(f"/proc/self/fd/{name}")}
    names = re.findall(r" (\\d+) \\S*/([A-Za-z0-9-]+)\\.new$", table, re.MULTILINE)
    return sorted(name for inode, name in names if f"socket:[{inode}]" in inodes)

def pids():
    return [worker.pid for worker in profiler.workers() if worker.started_ns is not None]

# Hooks that run before a fork run in the reverse order: this one is the last.
at_fork = []
os.register_at_fork(before=lambda: at_fork.extend(threads()))

def wait_for(count):
    while len(pids()) != count:
        time.sleep(0.001)

def in_child():
    wait_for(2)
    own = sockets() == [profiler.instance]
    recording = profiler.record_on_host("cpu", 0.1, upload=False)
    recording.result.result(20)
    summary = recording.summary
    profiler.stop()
    return own, summary, sockets() == []

with Profiler(on) as profiler:
    wait_for(1)
    print(child(in_child), pids() == [os.getpid()], sockets() == [profiler.instance])
print(sockets() == [], at_fork)
"""
    )

    assert output == "(True, '2 of 2', True) True True\nTrue []\n"
