"""The event loops that there are, how many tasks, and how long a loop takes to answer."""

from __future__ import annotations

import sys
import weakref
from itertools import islice
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_LOOKED_AT = 100


class Loops:
    """Found by their tasks. All calls but the loops' answers come from the timer's thread."""

    def __init__(self) -> None:
        self._known: dict[int, _Asked] = {}

    def task_count(self) -> int:
        """How many tasks there are, those that have ended and are still held included."""
        return sum(len(tasks) for tasks in _task_sets())

    def lag_ns(self, now_ns: int) -> int | None:
        """How long the slowest loop took, or has taken until now, to answer the last question. Asks anew.

        None when no loop runs.
        """
        self._find()
        lags = []
        for key, asked in list(self._known.items()):
            loop = asked.loop()
            if loop is None or loop.is_closed():
                del self._known[key]
                continue
            if not loop.is_running():
                asked.asked_ns = 0  # it answers when it runs again, and nobody waits for that
                continue
            if asked.asked_ns:
                lags.append((asked.answered_ns or now_ns) - asked.asked_ns)
            if asked.answered_ns or not asked.asked_ns:
                asked.ask(loop, now_ns)
        return max(lags, default=None)

    def clear(self) -> None:
        """Forgets them all."""
        self._known.clear()

    def _find(self) -> None:
        for tasks in _task_sets():
            for entry in _some_of(tasks):
                task = entry() if isinstance(entry, weakref.ref) else entry
                if task is not None:
                    loop = task.get_loop()
                    self._known.setdefault(id(loop), _Asked(weakref.ref(loop)))


class _Asked:
    """A loop, and the last question to it."""

    def __init__(self, loop: weakref.ref[asyncio.AbstractEventLoop]) -> None:
        self.loop = loop
        self.asked_ns = self.answered_ns = 0

    def ask(self, loop: asyncio.AbstractEventLoop, now_ns: int) -> None:
        self.asked_ns, self.answered_ns = now_ns, 0
        try:
            loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            self.asked_ns = 0  # it has been closed just now

    def _answer(self) -> None:
        self.answered_ns = monotonic_ns()


def _task_sets() -> list[Any]:
    # A service without asyncio is not made to load it.
    if "asyncio.tasks" not in sys.modules:
        return []
    from profiling_middleware.instruments.task_sets import task_sets

    return list(task_sets())


def _some_of(tasks: Any) -> list[Any]:
    try:
        return list(islice(tasks, _LOOKED_AT))
    except RuntimeError:  # changed meanwhile by the garbage collector: next time
        return []
