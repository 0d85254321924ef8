"""Which methods of asyncio's and anyio's locks may wait, and which end waits."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Operation(NamedTuple):
    """A method that may wait."""

    owner: type
    name: str
    waits: Callable[[Any], bool]
    """Whether it would wait if it was called now."""
    key: str
    """Which of an object's queues it waits in."""


class Ending(NamedTuple):
    """A method that ends waits."""

    owner: type
    name: str
    keys: tuple[str, ...]


def _lock_waits(lock: Any) -> bool:
    return bool(lock._locked or lock._waiters)


_OF_ASYNCIO = (
    Operation(asyncio.Lock, "acquire", _lock_waits, ""),
    Operation(asyncio.Semaphore, "acquire", lambda semaphore: bool(semaphore.locked()), ""),
    Operation(asyncio.Condition, "wait", lambda condition: True, "condition"),
    Operation(asyncio.Event, "wait", lambda event: not event.is_set(), ""),
    Operation(asyncio.Queue, "get", lambda queue: bool(queue.empty()), "get"),
    Operation(asyncio.Queue, "put", lambda queue: bool(queue.full()), "put"),
)
_ENDINGS_OF_ASYNCIO = (
    Ending(asyncio.Lock, "release", ("",)),
    Ending(asyncio.Semaphore, "release", ("",)),
    Ending(asyncio.Condition, "notify", ("condition",)),
    Ending(asyncio.Event, "set", ("",)),
    Ending(asyncio.Queue, "put_nowait", ("get",)),
    Ending(asyncio.Queue, "get_nowait", ("put",)),
)

# anyio's Event, Condition and CapacityLimiter wait for an asyncio.Event; memory object streams as well.
_ANYIO = "anyio._backends._asyncio"


def operations() -> tuple[Operation, ...]:
    """Those that are there by now: nothing is imported for this."""
    anyio = sys.modules.get(_ANYIO)
    lock, semaphore = getattr(anyio, "Lock", None), getattr(anyio, "Semaphore", None)
    found: tuple[Operation, ...] = _OF_ASYNCIO
    if isinstance(lock, type) and {"acquire", "release"} <= lock.__dict__.keys():
        found += (Operation(lock, "acquire", _anyio_lock_waits, ""),)
    if isinstance(semaphore, type) and {"acquire", "release"} <= semaphore.__dict__.keys():
        found += (Operation(semaphore, "acquire", _anyio_semaphore_waits, ""),)
    return found


def endings() -> tuple[Ending, ...]:
    """What ends the waits of `operations`."""
    others = (operation.owner for operation in operations()[len(_OF_ASYNCIO) :])
    return _ENDINGS_OF_ASYNCIO + tuple(Ending(owner, "release", ("",)) for owner in others)


def _anyio_lock_waits(lock: Any) -> bool:
    return lock._owner_task is not None or bool(lock._waiters)


def _anyio_semaphore_waits(semaphore: Any) -> bool:
    return semaphore._value <= 0 or bool(semaphore._waiters)
