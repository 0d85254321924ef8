"""Waiting for a thread to be gone for the system, too."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from profiling_middleware.threads import wait_until_gone


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_afterwards_the_system_does_not_know_the_thread_any_more() -> None:
    for _ in range(200):
        thread = threading.Thread(target=lambda: None)
        thread.start()

        wait_until_gone(thread, 10)

        assert str(thread.native_id) not in os.listdir("/proc/self/task")  # noqa: PTH208


def test_a_thread_that_hangs_is_waited_for_no_longer_than_the_bound(deadline: float) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, args=(deadline,))
    thread.start()
    since = time.monotonic()

    wait_until_gone(thread, 0.05)

    assert 0.05 <= time.monotonic() - since < 2
    end.set()
    thread.join(deadline)
