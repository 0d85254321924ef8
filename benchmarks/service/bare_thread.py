"""A thread that does nothing but wake up: what any sampler that polls has to pay here at least.

Compiled from C where there is a compiler, so that no Python runs in it. Otherwise a Python thread that sleeps, which
costs a little more; `Bare.in_c` says which one it is.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

_SOURCE = """\
#include <time.h>
void wake(volatile int *stop, long period_ns) {
    struct timespec period = {0, period_ns};
    while (!*stop) nanosleep(&period, 0);
}
"""


class Bare:
    """Wakes `rate` times a second from `start` to `stop`."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._library = _library()
        self.in_c = self._library is not None
        self._stop = ctypes.c_int(0)
        self._used_ns = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stop.value = 0
        self._thread = threading.Thread(target=self._run, name="bare", daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Returns the CPU time it took, in nanoseconds, by its own clock."""
        self._stop.value = 1
        if self._thread is not None:
            self._thread.join()
        return self._used_ns

    def _run(self) -> None:
        before = time.thread_time_ns()
        if self._library is not None:
            # The GIL is let go of once, for all of it.
            self._library.wake(ctypes.byref(self._stop), ctypes.c_long(1_000_000_000 // self._rate))
        else:
            while not self._stop.value:
                time.sleep(1 / self._rate)
        self._used_ns = time.thread_time_ns() - before


@cache
def _library() -> ctypes.CDLL | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(prefix="bare-") as directory:
        source, library = Path(directory, "bare.c"), Path(directory, "bare.so")
        source.write_text(_SOURCE)
        done = subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], capture_output=True)
        return ctypes.CDLL(str(library)) if done.returncode == 0 else None
