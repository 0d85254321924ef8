"""Files that never have one of the numbers 0, 1 and 2.

A program that closes its standard streams for a moment (a daemon does, before it opens /dev/null in their place) would
otherwise find that a thread of the profiler has got such a number meanwhile, and lose what it puts there when that
thread closes its file.
"""

from __future__ import annotations

import fcntl
import os

_FIRST = 3


def open_to_read(path: str) -> int:
    """A descriptor of the file, closed in programs that are started. Raises OSError."""
    return opener(path, os.O_RDONLY)


def opener(path: str, flags: int) -> int:
    """For `open()`. Raises OSError."""
    return above_standard_streams(os.open(path, flags | os.O_CLOEXEC))


def above_standard_streams(descriptor: int) -> int:
    """The same file under a number that no standard stream has; the one given is closed if that is another one."""
    if descriptor >= _FIRST:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST)
    finally:
        os.close(descriptor)
