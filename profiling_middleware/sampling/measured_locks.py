"""Locks that tell when somebody waits for them, in the place of those that `threading` hands out.

What is replaced are the names in `threading` by which locks are made: its own classes (Condition, Semaphore, Event,
Barrier), `queue` and whoever makes locks while it is replaced have locks that are measured. Locks that were made
before, by `_thread.allocate_lock` or by a name imported before, are the interpreter's own, and stay as they are.
"""

from __future__ import annotations

import _thread
import functools
import threading
from collections.abc import Callable
from typing import Any, Protocol

_LOCK_TYPE: type = _thread.LockType
_RLOCK_TYPE: type = _thread.RLock
_ORIGINAL_LOCK: object = threading.Lock


class LockObserver(Protocol):
    """Who measures."""

    def wait(self, lock: Any, acquire: Callable[..., Any], *arguments: Any) -> Any:
        """Calls `acquire(*arguments)`, which will most likely have to wait, and returns what it returns."""

    def released(self, lock: Any) -> None:
        """`lock`, for which somebody waits, is about to be released. Called by whoever calls its method."""


class LockFactories:
    """The names in `threading`, and what stands there while locks are measured.

    `Thread.join`, too: a thread's end is a lock of C's, or none.
    """

    def __init__(self, observer: LockObserver) -> None:
        lock = _make_lock_type(observer)
        allocate_lock = _make_factory(lock)
        self._replacements: dict[tuple[Any, str], Any] = {
            (threading, "Lock"): lock if isinstance(threading.Lock, type) else allocate_lock,
            (threading, "_allocate_lock"): allocate_lock,
            (threading, "RLock"): _make_rlock_type(observer),
            (threading.Thread, "join"): _make_join(observer),
        }
        self._originals: dict[tuple[Any, str], Any] = {}

    def replace(self) -> None:
        """From now on locks are made that are measured."""
        if not self._originals:
            for place, replacement in self._replacements.items():
                if hasattr(*place):
                    self._originals[place] = getattr(*place)
                    setattr(*place, replacement)

    def put_back(self) -> None:
        """From now on the interpreter's own are made. Those there are stay what they are, and work."""
        while self._originals:
            place, original = self._originals.popitem()
            # Who has put something else there meanwhile calls ours.
            if getattr(*place) is self._replacements[place]:
                setattr(*place, original)


class _LikeLock(type):
    """Makes every lock an instance, and every lock type a subclass, whoever made it and when."""

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        # Since 3.13 the type of locks makes them.
        if not isinstance(_ORIGINAL_LOCK, type):
            raise TypeError("cannot create '_thread.lock' instances")
        return super().__call__(*arguments, **named)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _LOCK_TYPE)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _LOCK_TYPE) or super().__subclasscheck__(subclass)


def _refuse_to_pickle(lock: object, protocol: object) -> Any:
    raise TypeError(f"cannot pickle '{type(lock).__module__}.{type(lock).__qualname__}' object")


class _End:
    """Of a thread, for one who waits for it: nobody releases it."""

    __slots__ = ("last_release", "released_ns", "waiters")

    def __init__(self) -> None:
        self.waiters: dict[int, Any] = {}
        self.released_ns, self.last_release = 0, None


def _make_join(observer: LockObserver) -> Any:
    wait, original = observer.wait, threading.Thread.join

    @functools.wraps(original)
    def join(self: threading.Thread, timeout: float | None = None) -> None:
        wait(_End(), original, self, timeout)

    return join


def _make_factory(lock: Any) -> Callable[[], Any]:
    new, begin = lock.__new__, lock.__init__

    def allocate_lock() -> Any:
        made = new(lock)
        begin(made)
        return made

    allocate_lock.__module__, allocate_lock.__qualname__ = "_thread", "allocate_lock"
    return allocate_lock


def _make_lock_type(observer: LockObserver) -> type:
    """`_thread.lock` cannot be subclassed: this one has a lock of it, and says that it is one."""
    wait, released, allocate = observer.wait, observer.released, _thread.allocate_lock

    class lock(metaclass=_LikeLock):  # noqa: N801 - as the original is called
        __slots__ = ("__weakref__", "_free", "_lock", "_take", "last_release", "released_ns", "waiters")

        def __init__(self) -> None:
            self._lock = original = allocate()
            self._take, self._free = original.acquire, original.release
            self.waiters: dict[int, Any] = {}
            """Who waits, for `LockObserver`."""
            self.released_ns, self.last_release = 0, None

        def __init_subclass__(cls) -> None:
            raise TypeError("type '_thread.lock' is not an acceptable base type")

        @property
        def __class__(self) -> type:
            return _LOCK_TYPE

        @__class__.setter
        def __class__(self, _: type) -> None:
            raise TypeError("__class__ assignment only supported for mutable types or ModuleType subclasses")

        def acquire(self, blocking: Any = True, timeout: Any = -1) -> bool:
            if timeout == -1 and blocking:
                return self._take(False) or wait(self, self._take)
            # The original refuses what cannot be meant.
            if not blocking or not self._lock.locked():
                return self._take(blocking, timeout)
            return bool(wait(self, self._take, blocking, timeout))

        def __enter__(self) -> bool:
            return self._take(False) or wait(self, self._take)

        def release(self) -> None:
            if self.waiters:
                released(self)
            self._free()

        def __exit__(self, *_: object) -> None:
            if self.waiters:
                released(self)
            self._free()

        def locked(self) -> bool:
            return self._lock.locked()

        acquire_lock, release_lock, locked_lock = acquire, release, locked
        __reduce_ex__ = _refuse_to_pickle

        def _at_fork_reinit(self) -> None:
            self._lock._at_fork_reinit()  # type: ignore[attr-defined]
            self.waiters.clear()  # they are the parent's

        def __repr__(self) -> str:
            return repr(self._lock)

    lock.__module__, lock.__qualname__ = "_thread", "lock"
    return lock


def _make_rlock_type(observer: LockObserver) -> type:
    wait, released = observer.wait, observer.released
    original: Any = _RLOCK_TYPE
    take: Callable[..., bool] = original.acquire
    free: Callable[..., None] = original.release
    save, restore, count = original._release_save, original._acquire_restore, original._recursion_count

    class RLock(original):  # type: ignore[misc]
        __slots__ = ("last_release", "released_ns", "waiters")

        # Not __init__: a subclass may have one that calls nobody else's.
        def __new__(cls, *arguments: Any, **named: Any) -> Any:
            self = original.__new__(cls, *arguments, **named)
            self.waiters = {}
            self.released_ns, self.last_release = 0, None
            return self

        def acquire(self, blocking: Any = True, timeout: Any = -1) -> bool:
            if timeout == -1 and blocking:
                return take(self, False) or wait(self, take, self)
            if not blocking:
                return bool(take(self, blocking, timeout))
            if take(self, False):
                try:
                    return bool(take(self, blocking, timeout))  # once more: it refuses what cannot be meant
                finally:
                    free(self)
            return bool(wait(self, take, self, blocking, timeout))

        def __enter__(self) -> bool:
            return take(self, False) or wait(self, take, self)

        def release(self) -> None:
            if self.waiters and count(self) == 1:
                released(self)
            free(self)

        def __exit__(self, *_: object) -> None:
            if self.waiters and count(self) == 1:
                released(self)
            free(self)

        def _release_save(self) -> Any:
            if self.waiters:
                released(self)
            return save(self)

        def _acquire_restore(self, state: Any) -> None:
            wait(self, restore, self, state)

        __reduce_ex__ = _refuse_to_pickle

        def _at_fork_reinit(self) -> None:
            super()._at_fork_reinit()
            self.waiters.clear()

        def __repr__(self) -> str:
            return str(original.__repr__(self)).replace(" RLock object", " _thread.RLock object")

    RLock.__module__, RLock.__qualname__ = "_thread", "RLock"
    return RLock
