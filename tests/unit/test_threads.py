"""Waiting for a thread to be gone for the system, too."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from profiling_middleware.threads import OwnThread, wait_until_gone


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


def test_what_a_handler_raises_while_it_starts_leaves_no_signal_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handlers run as soon as the mask has been changed."""
    original = signal.pthread_sigmask
    before = original(signal.SIG_BLOCK, ())

    def interrupted(how: int, mask: set[signal.Signals]) -> set[signal.Signals]:
        changed: set[signal.Signals] = original(how, mask)  # type: ignore[assignment]
        if mask and how == signal.SIG_BLOCK:
            raise KeyboardInterrupt
        return changed

    monkeypatch.setattr(signal, "pthread_sigmask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        OwnThread(lambda: None, "profiling-test").start()
    assert original(signal.SIG_BLOCK, ()) == before


def test_a_signal_for_the_service_is_delivered_to_the_main_thread_and_not_to_one_of_the_profilers(
    deadline: float,
) -> None:
    """The system takes any thread that does not block it, and only the main thread's waiting can be interrupted."""
    masks: list[set[signal.Signals]] = []
    thread = OwnThread(lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())), "profiling-test")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    thread.start()
    thread.join(deadline)

    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM} <= masks[0]
    assert not {signal.SIGPROF, signal.SIGSEGV, signal.SIGCHLD} & masks[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert thread.daemon
