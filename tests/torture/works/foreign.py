"""Threads that Python did not make and that come into it for a moment."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import threading
from collections.abc import Callable

from torture.families import Families
from torture.shared import spin
from torture.stage import Stage

_HELPER = r"""
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
struct job { void (*callback)(int); int times; };
static void *run(void *given)
{
    struct job job = *(struct job *)given;
    free(given);
    for (int time = 0; time < job.times; time++) {
        struct timespec pause = {0, 300000};
        job.callback(time);
        nanosleep(&pause, NULL);
    }
    return NULL;
}
int start(pthread_t *thread, void (*callback)(int), int times)
{
    struct job *job = malloc(sizeof *job);
    job->callback = callback;
    job->times = times;
    return pthread_create(thread, NULL, run, job);
}
"""
_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int)


def foreign(stage: Stage) -> None:  # called by run
    """Each time such a thread comes in it has a new thread state, often where another's was."""
    random, families = stage.random("foreign"), Families.shared(stage.directory)
    start = _helper(stage)
    if start is None:
        return
    libc = ctypes.CDLL(None)

    def entered(time: int) -> None:  # called by nobody
        if time % 3 == 0:
            threading.current_thread()
        elif time % 3 == 1:
            families.call_some(random, 2)
        spin(1_000)

    callback = _CALLBACK(entered)
    while not stage.wait(0.02):
        with stage.ending_threads():
            threads = [ctypes.c_ulong() for _ in range(random.randrange(1, 5))]
            times = random.choice((1, 3, 20))
            for thread in threads:
                if start(ctypes.byref(thread), callback, times) != 0:
                    stage.fail("a foreign thread could not be started")
                    return
            for thread in threads:
                libc.pthread_join(thread, None)
        stage.done["visits of foreign threads"] += times * len(threads)


def _helper(stage: Stage) -> Callable[..., int] | None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    code, library = stage.directory / "helper.c", stage.directory / "helper.so"
    code.write_text(_HELPER)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-pthread", "-o", library, code], check=True, env={"PATH": "/usr/bin:/bin"}
    )
    start: Callable[..., int] = ctypes.CDLL(str(library)).start
    return start
