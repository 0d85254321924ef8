"""Threads of the profiler's own, and waiting for a thread to be gone for the system, too, and not for Python only."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

native_id = _thread.get_native_id
"""The calling thread's. Not `threading`'s, in whose place the native engine may have put one that does more."""

OWN_THREADS = "profiling-"
"""What the names of all of them begin with."""

_POLL_SECONDS = 0.0002
# What services are told by. Not all there are: a program started from a thread inherits its mask.
_FOR_THE_MAIN_THREAD = {
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM
}  # fmt: skip


class OwnThread(threading.Thread):
    """A daemon thread to which the system delivers no signal that is meant for the service.

    It may choose any thread that does not block one, but Python runs handlers on the main thread only, and if that
    waits in a system call, nothing wakes it: a service that has one thread must not miss SIGTERM because the profiler
    has more.
    """

    def __init__(self, target: Callable[..., object], name: str, args: tuple[Any, ...] = ()) -> None:
        super().__init__(target=target, name=name, args=args, daemon=True)

    def start(self) -> None:
        # A new thread inherits the mask: there is no moment in which it has another.
        # Handlers run when the mask has been changed, and may raise: then there must be somebody to change it back.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_MAIN_THREAD)
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_until_gone(thread: threading.Thread, timeout: float) -> None:
    """Joins for at most `timeout` seconds.

    Before Python 3.13 join() returns a moment before the system's thread has ended, and a fork in that moment is one
    of a process with two threads.
    """
    deadline = time.monotonic() + timeout
    thread.join(timeout)
    task = f"/proc/self/task/{thread.native_id}"
    while os.path.exists(task) and time.monotonic() < deadline:  # noqa: PTH110 - before every fork, Path is slow
        time.sleep(_POLL_SECONDS)
