"""Why a thread waits, by the system call in which it does: what csrc/reason.c knows, for the portable engine."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from profiling_middleware.model import Reason

# Numbers of arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_DESCRIPTOR = "descriptor"
_CALLS: Mapping[str, Mapping[Reason | str, tuple[int, ...]]] = {
    "x86_64": {
        Reason.LOCK: (202,),
        _DESCRIPTOR: (0, 1, 17, 18, 19, 20, 40, 295, 296),
        Reason.NETWORK: (42, 44, 45, 46, 47, 299, 307),
        Reason.ACCEPT: (43, 288),
        Reason.POLL: (7, 23, 270, 271),
        Reason.EVENTS: (232, 281, 441),
        Reason.SLEEP: (35, 230),
        Reason.CHILD: (61, 247),
        Reason.FILE: (2, 72, 73, 74, 75, 257, 326),
    },
    "aarch64": {
        Reason.LOCK: (98,),
        _DESCRIPTOR: (63, 64, 65, 66, 67, 68, 69, 70, 71),
        Reason.NETWORK: (203, 206, 207, 211, 212, 243, 269),
        Reason.ACCEPT: (202, 242),
        Reason.POLL: (72, 73),
        Reason.EVENTS: (22, 441),
        Reason.SLEEP: (101, 115),
        Reason.CHILD: (95, 260),
        Reason.FILE: (25, 32, 56, 82, 83, 285),
    },
}


class Reasons:
    """The system calls of this machine."""

    def __init__(self, machine: str) -> None:
        self._by_call = {call: reason for reason, calls in _CALLS.get(machine, {}).items() for call in calls}

    def of(self, fields: list[bytes]) -> Reason:
        """`fields` are those of `/proc/self/task/TID/syscall` of a thread that waits: the call and its arguments."""
        reason = self._by_call.get(int(fields[0]), Reason.OTHER)
        if isinstance(reason, Reason):
            return reason
        try:
            mode = os.fstat(int(fields[1], 16)).st_mode
        except OSError:
            return Reason.OTHER
        return Reason.NETWORK if stat.S_ISSOCK(mode) else Reason.FILE
