"""Far more signals than the engine asks for: its CPU timers fire at the kernel's tick only, 100 to 1,000 times a second.

Threads that have a timer of the engine's get a second one, which carries the same value, on a clock that has no tick: those
that worked most lately. So handlers interrupt them at every instruction there is, also in the middle of waits.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import signal
import time
from pathlib import Path
from typing import Any

_SYSTEM_CALLS = {"x86_64": (222, 223, 226), "aarch64": (107, 110, 111)}
_PERIOD_NS = 150_000
_MOST = 4  # what comes between two drains has to fit into the ring
_SIGEV_THREAD_ID, _CLOCK_MONOTONIC = 4, 1
_TIMER = re.compile(rf"signal: {signal.SIGPROF:d}/([0-9a-f]+)\nnotify: signal/tid\.(\d+)\nClockID: (-\d+)\n")


class _Event(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_uint64),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("rest", ctypes.c_char * 44),
    )


class _When(ctypes.Structure):
    _fields_ = (("interval", ctypes.c_int64 * 2), ("first", ctypes.c_int64 * 2))


class Storm:
    """Takes the place of the extension in `sampling.native`, and is it but for the timers."""

    def __init__(self, native: Any) -> None:
        self._native = native
        self._libc = ctypes.CDLL(None)
        self._create, self._set, self._delete = _SYSTEM_CALLS[platform.machine()]
        self._timers: list[int] = []
        self._used: dict[tuple[int, int], int] = {}
        self._armed = False
        self.rages = False
        """Takes effect when the engine fetches its samples the next time."""
        os.register_at_fork(after_in_child=self._begin_in_child)

    def __getattr__(self, name: str) -> Any:  # called by the library
        return getattr(self._native, name)

    def set_period(self, period: int) -> int:  # called by the library
        self._armed = bool(period)
        if not period:
            self._calm()  # or its signals would come when nobody handles them any more
        unarmed: int = self._native.set_period(period)
        return unarmed

    def drain(self) -> Any:  # called by the library
        if self._armed and self.rages:
            self._rage()
        else:
            self._calm()
        return self._native.drain()

    def _begin_in_child(self) -> None:  # called by the library
        self._timers.clear()
        self._armed = self.rages = False

    def _rage(self) -> None:
        found = {
            (int(value, 16), int(thread))
            for value, thread, _ in _TIMER.findall(Path("/proc/self/timers").read_text())
            if int(value, 16) != 0
        }
        before, self._used = self._used, {timer: _cpu_ns(timer[1]) for timer in found}
        ran = sorted(found, key=lambda timer: before.get(timer, 0) - self._used[timer])  # called by the library
        self._calm()
        for value, thread in ran[:_MOST]:
            timer = ctypes.c_int()
            event = _Event(value=value, signal=signal.SIGPROF, notify=_SIGEV_THREAD_ID, thread=thread)
            if self._libc.syscall(self._create, _CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0:
                self._timers.append(timer.value)
                when = _When((0, _PERIOD_NS), (0, _PERIOD_NS))
                self._libc.syscall(self._set, timer.value, 0, ctypes.byref(when), None)

    def _calm(self) -> None:
        while self._timers:
            self._libc.syscall(self._delete, self._timers.pop())


def _cpu_ns(thread: int) -> int:
    try:
        return time.clock_gettime_ns((~thread << 3) | 6)
    except OSError:
        return 0
