"""SIGPROF: taken only where nobody has it, given back, left to whoever takes it; and nobody else notices."""

from __future__ import annotations

import _thread
import inspect
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_kit import Heard, Worker, burn, look_until

from profiling_middleware.config import Settings, SettingsError
from profiling_middleware.profiler import Profiler
from profiling_middleware.sampling import make_engine
from profiling_middleware.sampling.engine import Engine

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the native engine is Linux's")

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]
OpenEngine = Callable[..., Engine]


def action() -> str:
    """What the system does with it; Python only knows of handlers that it has set itself."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    bit = 1 << (signal.SIGPROF - 1)
    if int(status["SigCgt"], 16) & bit:
        return "caught"
    return "ignored" if int(status["SigIgn"], 16) & bit else "default"


# What each program needs: an engine, a listener, work on a thread whose clock is known.
KIT = f"""
import _thread, os, signal, sys, threading, time
from pathlib import Path
from profiling_middleware.config import Settings
from profiling_middleware.sampling import make_engine

{inspect.getsource(action)}
{inspect.getsource(burn)}

class Heard:
    wait_looks, hears_work, hears_waits, wait_moments_ns = 0.0, True, False, 0
    def __init__(self): self.samples = []
    def receive(self, samples): self.samples += samples
    def cpu_ns(self, function):
        return sum(s.cpu_ns for s in self.samples if any(f.function.endswith(function) for f in s.stack.frames))

def look_while(engine, work):
    done, used = threading.Event(), []
    def run():
        before = time.thread_time_ns()
        work()
        used.append(time.thread_time_ns() - before)
        done.set()
    thread = threading.Thread(target=run)
    thread.start()
    while not done.wait(min(0.05, engine.look())):
        pass
    thread.join()
    return used[0]
"""


@pytest.fixture
def default_afterwards() -> Iterator[None]:
    """SIGPROF is whose it was, and no timer of the process sends it."""
    handler = signal.getsignal(signal.SIGPROF)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, handler)


@pytest.fixture
def run_program(run_python: RunPython, need_native: Callable[[], None]) -> Callable[[str], list[str]]:
    """The lines that a program writes; it ends well."""

    def run(program: str) -> list[str]:
        need_native()
        ran = run_python(KIT + program)
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
        return ran.stdout.splitlines()

    return run


# -- whose it is ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("default_afterwards")
def test_where_somebody_handles_it_the_best_there_is_polls_and_says_so(open_engine: OpenEngine) -> None:
    open_engine("native")  # skips where it is not
    calls: list[int] = []
    signal.signal(signal.SIGPROF, lambda number, frame: calls.append(number))
    engine, heard, worker = open_engine("auto"), Heard(), Worker("burner", lambda: burn(0.2))
    try:
        engine.attach(heard)
        assert engine.name == "polling"
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
    finally:
        worker.join()

    assert engine.limits[0] == "SIGPROF belongs to somebody else in this process: stacks were polled instead"
    assert heard.cpu_ns("burner", ".burn") >= 0.9 * worker.used
    assert calls == []


@pytest.mark.usefixtures("default_afterwards")
def test_where_somebody_handles_it_the_native_engine_is_refused_with_a_remedy(need_native: Callable[[], None]) -> None:
    need_native()
    signal.signal(signal.SIGPROF, lambda number, frame: None)
    refusal = r"PROFILE_ENGINE \(engine\) = 'native' needs SIGPROF, and somebody else .*: use polling, or auto"

    with pytest.raises(SettingsError, match=refusal):
        make_engine(Settings(engine="native"))
    with pytest.raises(SettingsError, match=refusal):
        Profiler(Settings(engine="native"))


@pytest.mark.usefixtures("default_afterwards")
@pytest.mark.parametrize(("handler", "before"), [(signal.SIG_DFL, "default"), (signal.SIG_IGN, "ignored")])
def test_what_was_set_before_is_set_again_after_the_last_capture(
    handler: signal.Handlers, before: str, open_engine: OpenEngine
) -> None:
    signal.signal(signal.SIGPROF, handler)
    engine, heard, other = open_engine("native"), Heard(), Heard()
    for _ in range(2):
        engine.attach(heard)
        engine.attach(other)
        engine.detach(heard)
        assert action() == "caught"
        engine.detach(other)
        assert action() == before


def test_what_a_capture_changes_is_as_it_was_afterwards(native_engine: Engine) -> None:
    heard = Heard()
    native_engine.attach(heard)
    native_engine.detach(heard)

    assert action() == "default"
    assert threading.get_native_id is _thread.get_native_id
    assert signal.SIGPROF not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_who_has_replaced_get_native_id_keeps_it(native_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_somebody_else() -> int:
        return _thread.get_native_id()

    heard = Heard()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "get_native_id", of_somebody_else)
        native_engine.attach(heard)
        assert threading.get_native_id is of_somebody_else
        native_engine.detach(heard)
        assert threading.get_native_id is of_somebody_else

    native_engine.attach(heard)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "get_native_id", of_somebody_else)
        native_engine.detach(heard)
        assert threading.get_native_id is of_somebody_else
    threading.get_native_id = _thread.get_native_id


def test_who_takes_it_during_a_capture_keeps_it_and_the_capture_goes_on(
    run_program: Callable[[str], list[str]],
) -> None:
    said = run_program("""
calls = []
engine, heard = make_engine(Settings(engine="native", max_overhead=1.0)), Heard()
engine.attach(heard)
before = look_while(engine, lambda: burn(0.2))

def theirs(number, frame):
    calls.append(number)

signal.signal(signal.SIGPROF, theirs)
after = look_while(engine, lambda: burn(0.4))
engine.look()
print(engine.name, signal.getsignal(signal.SIGPROF) is theirs)
used = look_while(engine, lambda: burn(0.3))
quiet = len(calls)
later = look_while(engine, lambda: burn(0.1))
print("no signal of ours later:", len(calls) == quiet)
engine.detach(heard)
print("theirs:", signal.getsignal(signal.SIGPROF) is theirs)
total = before + after + used + later
placed = heard.cpu_ns("burn")
print("placed:", 0.7 * total <= placed <= 1.02 * total + 5e6 or (placed, total))
signal.raise_signal(signal.SIGPROF)
print("called:", len(calls) - quiet)
print(engine.limits[0])
""")

    assert said == [
        "polling True",
        "no signal of ours later: True",
        "theirs: True",
        "placed: True",
        "called: 1",
        "SIGPROF belongs to somebody else in this process: stacks were polled instead",
    ]


@pytest.mark.parametrize("handler", ["signal.SIG_DFL", "signal.SIG_IGN"])
def test_who_sets_it_back_to_nothing_during_a_capture_does_not_die_of_it(
    run_program: Callable[[str], list[str]], handler: str
) -> None:
    """The default action is to die, and timers are armed: this is for programs that reset what they find."""
    said = run_program(f"""
engine, heard = make_engine(Settings(engine="native", max_overhead=1.0)), Heard()
engine.attach(heard)
signal.signal(signal.SIGPROF, {handler})
engine.look()
print(engine.name)
used = look_while(engine, lambda: burn(0.2))
engine.detach(heard)
print(action())
""")

    assert said == ["polling", "default" if handler.endswith("DFL") else "ignored"]


def test_no_timer_is_armed_while_nobody_takes_its_signal(run_program: Callable[[str], list[str]]) -> None:
    """Whatever the engine believes: it would be the end of the process."""
    said = run_program("""
from profiling_middleware.sampling import _native
_native.discover(0)
print(_native.set_period(1_000_000))
burn(0.1)
print(action())
""")

    assert said == ["0", "default"]


def test_the_next_capture_takes_it_again_once_it_is_free(run_program: Callable[[str], list[str]]) -> None:
    said = run_program("""
engine, heard = make_engine(Settings(engine="auto", max_overhead=1.0)), Heard()
signal.signal(signal.SIGPROF, lambda number, frame: None)
engine.attach(heard)
print(engine.name)
engine.detach(heard)
signal.signal(signal.SIGPROF, signal.SIG_DFL)
engine.attach(heard)
print(engine.name)
engine.detach(heard)
print(action())
""")

    assert said == ["polling", "native", "default"]


def test_no_signal_comes_after_the_capture(run_program: Callable[[str], list[str]]) -> None:
    """One that was on its way when the handler went would kill the process."""
    said = run_program("""
engine, heard = make_engine(Settings(engine="native", max_overhead=1.0, sample_rate=1000)), Heard()
end = threading.Event()
sys.setswitchinterval(0.0001)
def work():
    while not end.is_set():
        burn(0.001)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for _ in range(100):
    engine.attach(heard)
    end.wait(0.003)
    engine.detach(heard)
burn(0.1)
end.set()
for thread in threads: thread.join()
print(heard.cpu_ns("burn") > 0)
""")

    assert said == ["True"]


# -- other senders ----------------------------------------------------------------------------------------------------


def test_a_foreign_timer_that_sends_it_harms_nobody(run_program: Callable[[str], list[str]]) -> None:
    """`setitimer(ITIMER_PROF)` of a program that never sets a handler would kill it; not while a capture runs."""
    said = run_program("""
engine, heard = make_engine(Settings(engine="native", max_overhead=1.0)), Heard()
engine.attach(heard)
signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)
used = look_while(engine, lambda: burn(0.3))
signal.raise_signal(signal.SIGPROF)
os.kill(os.getpid(), signal.SIGPROF)
signal.setitimer(signal.ITIMER_PROF, 0)
engine.detach(heard)
placed = heard.cpu_ns("burn")
print(engine.name, 0.95 * used <= placed <= 1.02 * used + 5e6 or (placed, used))
""")

    assert said == ["native True"]


def test_a_foreign_timer_is_still_its_owners_when_he_takes_the_signal(run_program: Callable[[str], list[str]]) -> None:
    """As profilers of other makes do: first the handler, then the timer."""
    said = run_program("""
calls = []
engine, heard = make_engine(Settings(engine="auto", max_overhead=1.0)), Heard()
signal.signal(signal.SIGPROF, lambda number, frame: calls.append(number))
signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)
engine.attach(heard)
until = time.process_time() + 0.3
worker = threading.Thread(target=burn, args=(0.2,))
worker.start()
burn(0.1)
worker.join()
engine.detach(heard)
interval = signal.getitimer(signal.ITIMER_PROF)[1]
signal.setitimer(signal.ITIMER_PROF, 0)
print(engine.name, len(calls) >= 5, interval == 0.01)
""")

    assert said == ["polling True True"]


# -- interrupted system calls -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["native", "polling"])
def test_waits_of_python_see_nothing(name: str, open_engine: OpenEngine) -> None:
    """Each thread burns before it waits, so that a signal is on its way when the call begins."""
    seen: list[object] = []

    def sleeps() -> None:
        for _ in range(30):
            burn(0.0011)
            before = time.monotonic()
            time.sleep(0.002)
            if time.monotonic() - before < 0.002:
                seen.append("sleep ended early")

    def selects() -> None:
        for _ in range(30):
            burn(0.0011)
            before = time.monotonic()
            if select.select([], [], [], 0.002) != ([], [], []) or time.monotonic() - before < 0.002:
                seen.append("select ended early")

    def receives() -> None:
        left, right = socket.socketpair()
        with left, right:
            for number in range(30):
                burn(0.0011)
                threading.Timer(0.002, right.send, [bytes([number])]).start()
                if left.recv(1) != bytes([number]):
                    seen.append("recv saw another byte")

    def waits() -> None:
        lock = threading.Lock()
        lock.acquire()
        for _ in range(30):
            burn(0.0011)
            before = time.monotonic()
            if lock.acquire(timeout=0.002) or time.monotonic() - before < 0.002:
                seen.append("lock ended early")

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                seen.append(error)

        return run

    engine, heard = open_engine(name, sample_rate=1000), Heard(wants_waits=True)
    workers = [Worker(work.__name__, guarded(work)) for work in (sleeps, selects, receives, waits)]
    try:
        engine.attach(heard)
        for worker in workers:
            worker.begin.set()
        for worker in workers:
            look_until(engine, worker.done)
        engine.detach(heard)
    finally:
        for worker in workers:
            worker.join()

    assert seen == []
    assert {thread for thread in ("sleeps", "selects", "receives", "waits") if heard.cpu_ns(thread) > 0} == {
        "sleeps",
        "selects",
        "receives",
        "waits",
    }


def test_a_wait_in_c_is_interrupted_by_no_signal_when_polling(run_program: Callable[[str], list[str]]) -> None:
    """C code that does not try again after EINTR is what `polling` is for: usleep and poll end early else."""
    said = run_program("""
import ctypes
library = ctypes.CDLL(None, use_errno=True)
engine, heard, early = make_engine(Settings(engine="polling", max_overhead=1.0, sample_rate=1000)), Heard(), []
engine.attach(heard)
def work():
    for _ in range(50):
        burn(0.002)
        if library.poll(None, 0, 3) != 0:
            early.append(ctypes.get_errno())
look_while(engine, work)
engine.detach(heard)
print(engine.name, early, heard.cpu_ns("burn") > 0)
""")

    assert said == ["polling [] True"]


def test_no_signal_comes_to_a_thread_that_waits(run_program: Callable[[str], list[str]]) -> None:
    """Timers count the thread's own CPU time: C code that cannot bear EINTR is only hit by what it used before."""
    said = run_program("""
import ctypes
library = ctypes.CDLL(None, use_errno=True)
engine, heard, results, there = make_engine(Settings(engine="native", max_overhead=1.0)), Heard(), [], threading.Event()
def wait():
    there.set()
    results.append((library.poll(None, 0, 300), ctypes.get_errno()))
engine.attach(heard)
waiting = threading.Thread(target=wait)
waiting.start()
there.wait()
look_while(engine, lambda: burn(0.4))
waiting.join()
engine.detach(heard)
print(results)
""")

    assert said == ["[(0, 0)]"]


def test_errno_is_what_the_code_made_it(run_program: Callable[[str], list[str]]) -> None:
    """The handler makes system calls that fail on purpose."""
    said = run_program("""
import ctypes
library = ctypes.CDLL(None, use_errno=True)
engine, heard, wrong = make_engine(Settings(engine="native", max_overhead=1.0, sample_rate=1000)), Heard(), []
location = library.__errno_location
location.restype = ctypes.POINTER(ctypes.c_int)
def work():
    errno = location()
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        errno[0] = 4711
        for _ in range(500):
            pass
        if errno[0] != 4711:
            wrong.append(errno[0])
engine.attach(heard)
look_while(engine, work)
engine.detach(heard)
print(len(heard.samples) > 10, set(wrong))
""")

    assert said == ["True set()"]


def test_pythons_own_signals_arrive_while_sampled(run_program: Callable[[str], list[str]]) -> None:
    said = run_program("""
engine, heard, calls = make_engine(Settings(engine="native", max_overhead=1.0, sample_rate=1000)), Heard(), []
signal.signal(signal.SIGUSR1, lambda number, frame: calls.append(frame.f_code.co_name))
engine.attach(heard)
def work():
    for _ in range(200):
        os.kill(os.getpid(), signal.SIGUSR1)
        burn(0.001)
used = look_while(engine, work)
engine.detach(heard)
print(len(calls) > 0, heard.cpu_ns("work") >= 0.9 * used)
""")

    assert said == ["True True"]
