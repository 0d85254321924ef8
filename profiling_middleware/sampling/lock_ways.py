"""Into a lock and out of it, without a byte code of Python's in between.

A signal handler runs between two byte codes, and may raise: KeyboardInterrupt, a server's or a test's time-out. The
interpreter's own locks are taken and released in C, where none runs, so after a `with` they are free. To keep that,
nothing of what a lock does while nobody waits for it is written in Python: it is put together from C functions.
"""

from __future__ import annotations

import _thread
import io
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any

from profiling_middleware.sampling.lock_observer import CLOCK, Observer, Wait

# As they are when this is loaded: who replaces them later (gevent) has locks of another kind.
ALLOCATE: Any = _thread.allocate_lock
LOCK_TYPE: Any = _thread.LockType
RLOCK_TYPE: Any = _thread.RLock

_NEVER = object()
"""What no function of theirs returns."""

# In 3.14 a `with` statement enters in other steps.
_KNOWN = (3, 11) <= sys.version_info < (3, 14)


def can_be_measured() -> bool:
    """Whether this interpreter has in C what a way is put together from, and a lock that orders what threads do."""
    has_gil = getattr(sys, "_is_gil_enabled", None)  # asked since 3.13
    if sys.implementation.name != "cpython" or not _KNOWN or (has_gil is not None and not has_gil()):
        return False
    methods = io.IOBase.__exit__, LOCK_TYPE.acquire, LOCK_TYPE.release, RLOCK_TYPE.acquire, RLOCK_TYPE.release
    functions = ALLOCATE, time.monotonic_ns
    return all(isinstance(method, MethodDescriptorType) for method in methods) and all(
        isinstance(function, BuiltinFunctionType) for function in functions
    )


class Answer:
    """What is asked whether it is true, and calls something for that: one instruction of Python's, and no frame."""

    __slots__ = ("__bool__",)

    def __init__(self, function: Callable[[], bool]) -> None:
        self.__bool__ = function


class Door:
    """What is called, and calls what stands there at the time."""

    __slots__ = ("__call__",)


class Way(io.IOBase):
    """The way of one lock, and who waits for it.

    `close` is what releases the lock. While nobody waits it is the original's own function. The first who waits puts
    a chain there that releases in C and then has the release noted; `Observer.released` puts the original back.
    A `with` statement has fetched its `__exit__` when it began, before anybody waited: therefore that must be
    something that looks for `close` in the moment it is called, whatever it is given. IOBase has such a one, in C.

    To call a way is to release its lock.
    """

    __slots__ = ("_observer", "close", "original", "saves", "waits")

    closed = True
    """Nothing has to be done when it goes: IOBase would call close()."""

    def __init__(self, original: Any, observer: Observer, saves: Any = None) -> None:
        """`original` is the interpreter's lock; `saves` what a condition calls to let go of it, if it is an RLock."""
        self.original, self._observer, self.saves = original, observer, saves
        self.waits: set[Wait] = set()
        """Of those who wait, and who did when it was released last."""
        self.release_plainly()

    def release_plainly(self) -> None:
        """From now on a release is the original's."""
        self.close = self.original.release  # type: ignore[method-assign]
        if self.saves is not None:
            self.saves.__call__ = self.original._release_save

    def note_releases(self) -> None:
        """From now on each release is noted: first of all it is one, with the time taken just before."""
        self.close = self._noted(self.original.release)  # type: ignore[method-assign, assignment]
        if self.saves is not None:
            self.saves.__call__ = self._noted(self.original._release_save)

    @property
    def is_still_held(self) -> bool:
        """Whether the calling thread, which has released it, has it once more."""
        return self.saves is not None and bool(self.original._is_owned())

    def _noted(self, release: Callable[[], object]) -> Callable[[], object]:
        # An endless iterator whose every step calls these three, the first one last. It has no state: threads share it.
        times, releases = iter(time.monotonic_ns, _NEVER), iter(release, _NEVER)
        return map(self._observer.released, repeat(self), times, releases).__next__

    def take(self, acquires: Answer | None = None) -> bool:
        """Waits until the lock is free, and takes it; `acquires` does both, and may give up. Returns whether it has it.

        Raises what signal handlers raise, and then has not taken it.
        """
        if acquires is None:
            acquires = Answer(self.original.acquire)
        wait, refused = Wait(), True
        try:
            self._observer.begins(wait, self, sys._getframe(1))
            # Taken, most likely. From here on nothing is called, so no handler runs before whoever has asked knows.
            refused = not acquires
            wait.taken = not refused
            wait.ended_ns = -CLOCK
            return wait.taken
        except BaseException:
            # Of a handler while it waited. With the lock only if there was no memory, or a trace function raised.
            if refused:
                wait.ended_ns = -CLOCK
            else:
                wait.taken, wait.ended_ns = False, wait.began_ns
                self.original.release()
            raise


# One slot with two names: what is put there is there for both in the same moment.
setattr(Way, "__call__", Way.__dict__["close"])  # noqa: B010 - not known as one that can be called


def ways_in(original: Any, way: Way) -> tuple[Answer, Callable[[], bool]]:
    """What tries to take a lock, and what takes it: the former first, and only if that fails the `way`, which waits."""
    # Each takes three levels of recursion, as many as the longest way out: who gets in can leave.
    tries = Answer(partial(original.acquire, False))
    return tries, partial(any, (tries, Answer(way.take)))
