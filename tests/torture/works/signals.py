"""Waits that a signal may end too early, and errors whose number a handler may have lost."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable

from torture.shared import spin
from torture.stage import Stage

_EARLY = 0.001
"""Clocks that are read one after the other differ by less."""


def on_alarm(number: int, frame: object) -> None:  # called by anything
    """Python's own handler, in the main thread."""
    spin(20)


def waits(stage: Stage) -> None:  # called by run
    """Python's waits last as long as they were asked to; C's, too, while the engine sends no signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    random, libc = stage.random("waits"), ctypes.CDLL(None, use_errno=True)
    reader, writer = os.pipe()
    one, other = socket.socketpair()
    lock, poll = threading.Lock(), select.poll()
    lock.acquire()
    poll.register(reader, select.POLLIN)
    one.settimeout(0.02)
    ways: tuple[Callable[[], object], ...] = (
        lambda: time.sleep(0.02),
        lambda: select.select([reader], [], [], 0.02),
        lambda: poll.poll(20),
        lambda: lock.acquire(timeout=0.02),
        lambda: received(one),
        lambda: signal.sigtimedwait({signal.SIGUSR2}, 0.02),
    )
    while not stage.stopped.is_set():
        spin(2_000)
        way, began = random.choice(ways), time.monotonic()
        way()  # lambda
        if time.monotonic() - began < 0.02 - _EARLY:
            stage.fail(f"a wait ended after {time.monotonic() - began:.4f} s instead of 0.02")
        if libc.usleep(2_000) != 0:
            stage.done["waits of C code that a signal ended"] += 1
            if stage.engine == "polling":
                stage.fail("C code was woken by a signal of the polling engine")
        stage.done["waits"] += 2
    for end in (one, other):
        end.close()
    os.close(reader)
    os.close(writer)


def received(end: socket.socket) -> None:
    try:
        end.recv(1)
    except TimeoutError:
        spin(3)


def errors(stage: Stage) -> None:  # called by run
    """Each system call that fails does so with its own number."""
    libc = ctypes.CDLL(None, use_errno=True)
    while not stage.wait(0.001):
        for _ in range(50):
            for call, right in (
                (lambda: os.stat("/there/is/no/such"), errno.ENOENT),
                (lambda: os.close(-1), errno.EBADF),
                (lambda: os.rmdir("/"), errno.EBUSY),
                (lambda: os.kill(os.getpid(), 999), errno.EINVAL),
            ):
                if (number := failed(call)) != right:
                    stage.fail(f"{errno.errorcode.get(number, number)} instead of {errno.errorcode[right]}")
            ctypes.set_errno(0)
            if libc.open(b"/there/is/no/such", os.O_RDONLY) != -1 or ctypes.get_errno() != errno.ENOENT:
                stage.fail(f"errno is {ctypes.get_errno()} instead of ENOENT")
        stage.done["failing system calls"] += 250


def failed(call: Callable[[], object]) -> int:
    try:
        call()  # lambda
    except OSError as error:
        return error.errno or 0
    return 0
