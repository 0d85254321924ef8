"""Children of every kind, which go on, take captures of their own, or run another program."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import time
import traceback
from collections.abc import Callable
from functools import partial
from random import Random

from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.profiler import Profiler
from torture.families import Families
from torture.shared import spin
from torture.stage import Stage

_SECONDS = 60


def forks(stage: Stage) -> None:  # called by run
    """Children that say that all went well."""
    random, families = stage.random("forks"), Families.shared(stage.directory)
    while not stage.wait(random.random() / 5):
        kind = random.choice((works, exits, takes_captures, multiprocessed, runs, runs_after_fork, many_run))
        with stage.forking():
            if kind in (works, exits, takes_captures):
                answer = fork(partial(kind, families, Random(random.random())))
            else:
                answer = kind()  # multiprocessed, runs, runs_after_fork, many_run
        if answer != "fine":
            stage.fail(f"a child that {kind.__name__}: {answer}")
        stage.done[f"children that did {kind.__name__}"] += 1


def fork(body: Callable[[], object]) -> str:
    """What a child that runs `body` has to say: `fine`, or its exception, or how it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        in_child(body, writer)
    os.close(writer)
    said = b""
    until = time.monotonic() + _SECONDS
    while select.select([reader], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(reader, 65536)
        if not part:
            break
        said += part
    else:
        os.kill(child, signal.SIGABRT)
        said += f"hung for {_SECONDS} s".encode()
    os.close(reader)
    _, status = os.waitpid(child, 0)
    ended = "" if status == 0 else f" (exit code {os.waitstatus_to_exitcode(status)})"
    return said.decode() + ended


def in_child(body: Callable[[], object], writer: int) -> None:
    try:
        body()
        os.write(writer, b"fine")
    except BaseException:
        os.write(writer, traceback.format_exc().encode())
    finally:
        os._exit(0)


def works(families: Families, random: Random) -> None:  # called by in_child
    families.call_some(random, 100)


def exits(families: Families, random: Random) -> None:  # called by in_child
    spin(10)


def takes_captures(families: Families, random: Random) -> None:  # called by in_child
    """The child's profiler is another one; its profile is checked by the child."""
    from torture.captures import CheckedPipeline, check_waiting, install

    profiler = THIS_PROCESS.resident
    if not isinstance(profiler, Profiler):
        return  # the parent had none yet
    checker = CheckedPipeline.checker.fresh()  # a thread that is not here may have locked the parent's
    install(checker)
    recordings = [profiler.record(kind, 0.3, upload=False) for kind in ("cpu", "wall")]
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        families.call_some(random, 10)
    for recording in recordings:
        recording.result.result(_SECONDS)
    check_waiting()
    assert not checker.wrong, checker.report()
    assert checker.samples, "nothing was seen"


def multiprocessed() -> str:
    process = multiprocessing.get_context("fork").Process(target=spin, args=(20_000,))
    process.start()
    process.join(_SECONDS)
    return "fine" if process.exitcode == 0 else f"exit code {process.exitcode}"


def runs() -> str:
    ended = subprocess.run(["/bin/echo", "fine"], capture_output=True, timeout=_SECONDS, check=False)
    return "fine" if ended.stdout == b"fine\n" else str(ended)


def runs_after_fork() -> str:
    """With a function to call in the child, it is forked; without, it shares the memory for a moment (vfork)."""
    ended = subprocess.run(
        ["/bin/echo", "fine"], capture_output=True, timeout=_SECONDS, check=False, preexec_fn=before_program
    )
    return "fine" if ended.stdout == b"fine\n" else str(ended)


def before_program() -> None:  # called by the library
    spin(10)


def many_run() -> str:
    processes = [subprocess.Popen(["/bin/sleep", "0.01"]) for _ in range(5)]
    codes = [process.wait(_SECONDS) for process in processes]
    return "fine" if not any(codes) else f"exit codes {codes}"
