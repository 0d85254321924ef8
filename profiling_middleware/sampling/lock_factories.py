"""The names in `threading` by which locks are made, and `Thread.join`: replaced while locks are measured.

`threading`'s own classes (Condition, Semaphore, Event, Barrier, Timer), `queue`, `concurrent.futures` and whoever else
asks there for a lock then has one that is measured. Locks that were made before, by `_thread.allocate_lock`, or by a
name that somebody took before, are the interpreter's own, and nothing is done to them.
"""

from __future__ import annotations

import functools
import sys
import threading
from typing import Any

from profiling_middleware.sampling.lock_observer import CLOCK, Observer, Wait
from profiling_middleware.sampling.lock_types import IS_MADE_BY_CALL, lock_type, rlock_type
from profiling_middleware.sampling.lock_ways import ALLOCATE, LOCK_TYPE, RLOCK_TYPE

_OWN = ALLOCATE, LOCK_TYPE, RLOCK_TYPE
_JOIN = threading.Thread.join


class LockFactories:
    """All of one process. What they have made stays what it is when the names are put back, and works."""

    def __init__(self, observer: Observer) -> None:
        lock = lock_type(observer)
        make: Any = lock
        if not IS_MADE_BY_CALL:
            # A builtin function is no method where a class has it; nor is this.
            make = functools.partial(lock.__new__, lock)
            make.__module__, make.__name__, make.__qualname__ = "_thread", "allocate_lock", "allocate_lock"
        self._replacements: dict[tuple[Any, str], Any] = {
            (threading, "Lock"): make,
            (threading, "_allocate_lock"): make,
            # What threading.RLock() calls: whoever has taken that name before has measured ones, too.
            (threading, "_CRLock"): rlock_type(observer),
            (threading.Thread, "join"): _join(observer),
        }
        self._originals: dict[tuple[Any, str], Any] = {}

    def replace(self) -> None:
        """From now on locks are made that are measured."""
        for place, replacement in self._replacements.items():
            standing = getattr(*place, None)
            # What others have put there is theirs, and makes other locks (gevent's); it may be calling ours already.
            if place not in self._originals and any(standing is own for own in (*_OWN, _JOIN)):
                self._originals[place] = standing
                setattr(*place, replacement)

    def put_back(self) -> None:
        """From now on the interpreter's own are made."""
        while self._originals:
            place, original = self._originals.popitem()
            # Who has put something else there meanwhile keeps it.
            if getattr(*place) is self._replacements[place]:
                setattr(*place, original)


def _join(observer: Observer) -> Any:
    original = threading.Thread.join

    @functools.wraps(original)
    def join(self: threading.Thread, timeout: float | None = None) -> None:
        # The end of a thread is a lock of C's, or none: nobody releases it.
        wait = Wait()
        try:
            observer.begins(wait, None, sys._getframe(1))
            original(self, timeout)
        finally:
            wait.ended_ns = -CLOCK

    return join
