"""What stands for the interpreter's locks while they are measured: it has one of them, and says that it is one."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from profiling_middleware.failures import raised_by_a_handler
from profiling_middleware.sampling.lock_observer import Observer
from profiling_middleware.sampling.lock_ways import ALLOCATE, LOCK_TYPE, RLOCK_TYPE, Answer, Door, Way, ways_in

# Since 3.13 the type makes them, before a function does.
IS_MADE_BY_CALL = isinstance(threading.Lock, type)


def _unbound(name: str) -> property:
    """What `type(lock).name` is, as ExitStack takes it: a function of the lock. The type has a slot of that name."""

    def method(lock: Any, *arguments: Any, **named: Any) -> Any:
        return getattr(lock, name)(*arguments, **named)

    method.__name__ = name
    return property(lambda cls: method)


class _Like(type):
    """Makes every lock an instance and every lock type a subclass, whoever made it and when."""

    original: type
    __enter__, __exit__ = _unbound("__enter__"), _unbound("__exit__")
    acquire, release = _unbound("acquire"), _unbound("release")

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.original)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.original) or super().__subclasscheck__(subclass)


class _NotCalled(_Like):
    """Of a type that makes no instances when it is called."""

    def __call__(cls, *_: Any, **__: Any) -> Any:
        raise TypeError(f"cannot create '_thread.{cls.__name__}' instances")


def _acquire(way: Way, tries: Answer, blocking: Any = True, timeout: Any = -1) -> bool:
    """As the original's. Unlike `with` it may be left by a handler's exception with the lock, as there."""
    acquires = None
    if blocking is not True or timeout != -1:
        if not blocking:
            return bool(way.original.acquire(blocking, timeout))
        ALLOCATE().acquire(blocking, timeout)  # refuses what cannot be meant
        acquires = Answer(partial(way.original.acquire, blocking, timeout))
    if tries:
        return True
    return way.take(acquires)


class _Measured(metaclass=_Like):
    """What both kinds do. Where nobody waits, only C runs: see `lock_ways`.

    Whoever calls a method calls C: after such a call the interpreter looks for signals, in the frame of who called, and
    after that of a function in Python it does not. Condition.wait counts on it: the next place would be in its
    `finally`, before it has its lock again.
    """

    __slots__ = ("__enter__", "__exit__", "__weakref__", "_lock", "_way", "acquire", "release")

    original: type
    acquire: Any
    release: Any

    def _stands_for(self, original: Any, observer: Observer, saves: Any = None) -> bool:
        """Whether it does from now on; if anything fails there is the original."""
        try:
            self._lock = original
            self._way = way = Way(original, observer, saves)
            tries, self.__enter__ = ways_in(original, way)
            self.__exit__, self.release = way.__exit__, way
            self.acquire = partial(_acquire, way, tries)
        except Exception as error:
            if raised_by_a_handler(error):
                raise
            return False
        return True

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self).original

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()
        self._way.waits.clear()  # they are the parent's
        self._way.release_plainly()

    def __reduce_ex__(self, _: object) -> Any:
        raise TypeError(f"cannot pickle '_thread.{type(self).__name__}' object")

    def __repr__(self) -> str:
        return repr(self._lock)


def lock_type(observer: Observer) -> type:
    """For `_thread.lock`, of which nothing can be derived."""

    kind: type = _Like if IS_MADE_BY_CALL else _NotCalled

    class lock(_Measured, metaclass=kind):  # type: ignore[metaclass]  # noqa: N801 - as the original is called
        __slots__ = ("locked",)

        original = LOCK_TYPE
        locked: Any

        def __new__(cls) -> Any:
            self, original = object.__new__(cls), ALLOCATE()
            if not self._stands_for(original, observer):
                return original
            self.locked = original.locked
            return self

        def __init_subclass__(cls) -> None:
            raise TypeError("type '_thread.lock' is not an acceptable base type")

    for name, synonym in (("acquire", "acquire_lock"), ("release", "release_lock"), ("locked", "locked_lock")):
        setattr(lock, synonym, next(vars(kind)[name] for kind in lock.__mro__ if name in vars(kind)))
    lock.__module__, lock.__qualname__ = "_thread", "lock"
    return lock


def rlock_type(observer: Observer) -> type:
    """For `_thread.RLock`."""

    class RLock(_Measured):
        # How a condition lets go of it and takes it again. The latter must not raise, so it stays the original's.
        __slots__ = ("_acquire_restore", "_is_owned", "_recursion_count", "_release_save")

        original = RLOCK_TYPE
        _acquire_restore: Any
        _is_owned: Any
        _recursion_count: Any
        _release_save: Any

        # Not __init__: a subclass may have one that calls nobody else's.
        def __new__(cls, *_: Any, **__: Any) -> Any:
            self, original, saves = object.__new__(cls), RLOCK_TYPE(), Door()
            if not self._stands_for(original, observer, saves):
                return original
            self._release_save = saves
            self._acquire_restore, self._is_owned = original._acquire_restore, original._is_owned
            if hasattr(original, "_recursion_count"):
                self._recursion_count = original._recursion_count
            return self

    RLock.__module__, RLock.__qualname__ = "_thread", "RLock"
    return RLock
