"""Waiting for a thread to be gone for the system, too, and not for Python only."""

from __future__ import annotations

import os
import threading
import time

_POLL_SECONDS = 0.0002


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
