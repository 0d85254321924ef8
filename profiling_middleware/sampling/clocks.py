"""What Linux tells a process about its own threads: CPU clocks, native ids, and who is running.

All of it needs no privilege. Elsewhere (`ThreadClocks.available()` is False) the engine works without.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from profiling_middleware.descriptors import open_to_read, opener
from profiling_middleware.model import Reason
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.sampling.reasons import Reasons

_FUTEX_CALLS = {"x86_64": b"202", "aarch64": b"98"}
_TASKS = "/proc/self/task"
_KEPT_DESCRIPTORS = 128
_PTHREAD_BYTES = 0x800


class ThreadClocks:
    """CPU clocks and native ids of the threads of this process."""

    exact = True

    def __init__(self) -> None:
        self._tid_offset = self._find_tid_offset()

    @staticmethod
    def available() -> bool:
        if not sys.platform.startswith("linux"):
            return False
        own = ThreadClocks.cpu_ns(threading.get_native_id())
        return own is not None and Path(_TASKS).is_dir()

    def refresh(self) -> None:
        """Nothing to do: these clocks go by themselves."""

    @staticmethod
    def cpu_ns(native_id: int) -> int | None:
        """CPU time of a thread in nanoseconds, None when it has ended.

        The clock id is that of Linux's CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED (include/linux/posix-timers.h); unlike
        pthread_getcpuclockid on a thread that has ended, it fails cleanly.
        """
        try:
            return time.clock_gettime_ns((~native_id << 3) | 6)
        except OSError:
            return None

    def native_id(self, ident: int) -> int | None:
        """The kernel's id of the thread that Python calls `ident`, also of one `threading` did not start."""
        known = getattr(threading, "_active", {}).get(ident)
        native_id = getattr(known, "native_id", None)
        # In a forked child `threading` may still have the parent's number, which has no clock here.
        if isinstance(native_id, int) and self.cpu_ns(native_id) is not None:
            return native_id
        return self._read_tid(ident)

    def _find_tid_offset(self) -> int | None:
        # An ident is the address of the C library's own thread structure, which holds the kernel's id
        # somewhere near its start. Where, is learnt from the thread that is asking.
        content = self._read_memory(threading.get_ident(), _PTHREAD_BYTES)
        wanted = struct.pack("i", threading.get_native_id())
        for offset in range(0, len(content) - 3, 4):
            if content[offset : offset + 4] == wanted:
                return offset
        return None

    def _read_tid(self, ident: int) -> int | None:
        if self._tid_offset is None:
            return None
        content = self._read_memory(ident + self._tid_offset, 4)
        if len(content) < 4:
            return None
        (native_id,) = struct.unpack("i", content)
        return native_id if native_id > 0 else None

    @staticmethod
    def _read_memory(address: int, size: int) -> bytes:
        # Through the kernel: an address that is gone is an error here and would be a crash if it were loaded.
        try:
            descriptor = open_to_read("/proc/self/mem")
        except OSError:
            return b""
        try:
            return os.pread(descriptor, size, address)
        except (OSError, OverflowError):
            return b""
        finally:
            os.close(descriptor)


class OwnCpu:
    """CPU time of the thread that samples, also when another thread goes on in its place (after a fork)."""

    def __init__(self) -> None:
        self._native_id = 0
        self._before_ns = 0
        self._last_ns = 0

    def total_ns(self) -> int:
        """CPU time of all threads that have asked, each counted from its first question on."""
        # Not Python's ident: the next thread often gets the same one.
        native_id, used = threading.get_native_id(), time.thread_time_ns()
        if native_id != self._native_id:
            self._native_id, self._before_ns = native_id, self._last_ns - used
        self._last_ns = self._before_ns + used
        return self._last_ns


class RunState(Enum):
    """What a thread is doing at this moment."""

    ABLE = "on a processor, or about to be, or waiting for the GIL"
    WAITING = "waiting in a system call"
    UNKNOWN = "cannot be told here"


class RunStates:
    """What threads are doing, from `/proc/self/task/TID/syscall` on descriptors that stay open.

    The descriptors are read through ctypes' PyDLL, which keeps the GIL: os.pread lets go of it, and getting it back
    from a busy thread takes 5 ms.
    """

    def __init__(self) -> None:
        self._descriptors: dict[int, int] = {}
        self._reasons = Reasons(os.uname().machine)
        self.reason = Reason.UNKNOWN
        """Why the thread waits that was found waiting last."""
        self._futex = _FUTEX_CALLS.get(os.uname().machine)
        self._runtime = _interpreter_data()
        self._read = _reader_with_gil() if self._runtime is not None else None
        self.available = self.of(threading.get_native_id()) is not RunState.UNKNOWN
        self.close()

    def of(self, native_id: int) -> RunState:
        """What this thread is doing now."""
        if self._read is None or self._runtime is None:
            return RunState.UNKNOWN
        try:
            descriptor = self._descriptors.get(native_id)
            state = self._read(self._open(native_id) if descriptor is None else descriptor)
        except OSError:
            state = b""
        if state.startswith(b"running"):
            return RunState.ABLE
        fields = state.split()
        if not fields:
            self.forget(native_id)
            return RunState.UNKNOWN
        if fields[0] == b"-1":
            return RunState.ABLE  # in a page fault
        # The GIL lies inside the interpreter's own data, where no lock of a program can be.
        wants_gil = fields[0] == self._futex and int(fields[1], 16) in self._runtime
        if not wants_gil:
            self.reason = self._reasons.of(fields)
        return RunState.ABLE if wants_gil else RunState.WAITING

    def forget(self, native_id: int) -> None:
        """Closes what is kept for a thread that has ended."""
        descriptor = self._descriptors.pop(native_id, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Closes everything: nobody listens, or this is a forked child with its parent's descriptors."""
        for native_id in list(self._descriptors):
            self.forget(native_id)

    def _open(self, native_id: int) -> int:
        if len(self._descriptors) >= _KEPT_DESCRIPTORS:
            self.forget(next(iter(self._descriptors)))
        descriptor = open_to_read(f"{_TASKS}/{native_id}/syscall")
        self._descriptors[native_id] = descriptor
        return descriptor


def native_thread_ids() -> list[int]:
    """Every thread of the process, also those Python knows nothing of."""
    try:
        return [int(name) for name in os.listdir(_TASKS)]  # noqa: PTH208 - called while sampling, Path is slow
    except OSError:
        return []


def native_thread_name(native_id: int) -> str:
    """The name the system shows for a thread (15 bytes at most)."""
    try:
        with open(f"{_TASKS}/{native_id}/comm", encoding="utf-8", errors="replace", opener=opener) as name:
            return name.read().strip() or str(native_id)
    except OSError:
        return str(native_id)


def _reader_with_gil() -> Callable[[int], bytes] | None:
    """A pread of up to 256 bytes from the start of a descriptor; empty when it fails."""
    try:
        with THIS_PROCESS.imports.underway():
            import ctypes

        pread = ctypes.PyDLL(None).pread
    except (ImportError, OSError, AttributeError):
        return None
    pread.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long)
    pread.restype = ctypes.c_ssize_t
    buffer = ctypes.create_string_buffer(256)

    def read(descriptor: int) -> bytes:
        count = pread(descriptor, buffer, 256, 0)
        return buffer.raw[:count] if count > 0 else b""

    return read


def _interpreter_data() -> range | None:
    """The address range of the interpreter's own data segment, in which the GIL lives."""
    try:
        with THIS_PROCESS.imports.underway():
            import ctypes

        runtime = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
        with open("/proc/self/maps", encoding="utf-8", errors="replace", opener=opener) as maps:
            for line in maps:
                low, high = (int(bound, 16) for bound in line.split()[0].split("-"))
                if low <= runtime < high:
                    return range(low, high)
    except (ImportError, ValueError, OSError, AttributeError):
        return None
    return None
