"""Where asyncio's tasks wait: a bounded random sample of them at each look, scaled to all.

Also who keeps a loop from serving anyone: at each look every loop is asked to answer, and one that has not done so a
moment later is held up by whatever runs in its thread then.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from types import CodeType
from typing import Any

from profiling_middleware.instruments import WaitListener
from profiling_middleware.instruments.chains import ChainReader, parents, suspended_frames
from profiling_middleware.instruments.task_sets import task_sets
from profiling_middleware.model import Contention, Reason, Stack, Thread
from profiling_middleware.stacks import StackTable, reading_others

# For each look at threads so many tasks: 80 a second for half a minute, 20 all the time. 2,400 of them tell a share of
# one half within 0.01 (one standard deviation of a binomial).
_TASKS_A_THREAD_LOOK = 4.0
_THREAD_LOOKS_A_LOOK = 4.0
_MOST_PASSED = 50_000
_TRIES = 3
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.2, 0.8
# No loop runs while tasks are walked. 16 mostly take less; where they are deep, or the machine slow, fewer are walked,
# and looks are rarer than wanted, so that they stay below this share of a core.
_LONGEST_WALK_NS = 300_000
_MOST_SHARE = 0.004
_COST_WEIGHT = 0.1
# A loop that answers later than this is held up.
_PATIENCE_SECONDS = 0.03
_LONGEST_ELAPSED_NS = 1_000_000_000


@dataclass(slots=True)
class _Loop:
    """A loop that was seen, and the question it has not answered yet."""

    loop: weakref.ref[asyncio.AbstractEventLoop]
    ident: int = 0
    """Of the thread it runs in; 0 until it has answered once."""
    asked_ns: int = 0
    answered: bool = True

    def answer(self) -> None:
        self.ident = threading.get_ident()
        self.answered = True


class AsyncioTasks:
    """See `instruments.Instrument`."""

    def __init__(self, *, measuring: CodeType | None = None, reader: ChainReader | None = None) -> None:
        """A task with `measuring` on its stack waits where somebody else measures it.

        With a `reader` what has been seen before need not be read frame by frame.
        """
        self._measuring, self._reader = measuring, reader
        self._listeners: list[WaitListener] = []
        self._loops: dict[int, _Loop] = {}
        self._stacks = StackTable()
        self._random = random.Random()
        self._looked_ns = 0
        self._asks = False
        self._wanted_seconds = self._seconds = _LONGEST_SECONDS
        """Between looks, as the listeners want it and as it may be."""
        self._look_ns = 0.0
        """What looking at tasks, and at who holds them up, has cost in the mean."""
        self._count = 1
        """Tasks a look."""
        self.cost_ns = 0

    @property
    def limits(self) -> tuple[str, ...]:
        # Lib/asyncio/tasks.py of 3.14: the tasks of C are in lists of their threads.
        return ("this Python keeps its tasks where they are not seen waiting",) * (sys.version_info >= (3, 14))

    def attach(self, listener: WaitListener) -> None:
        if not self._listeners:
            self._looked_ns = time.monotonic_ns()
            self._asks = False
        self._listeners.append(listener)
        self._adjust()

    def detach(self, listener: WaitListener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
            self._adjust()
        if not self._listeners:
            self._loops.clear()
            self._stacks.clear()  # it keeps code alive

    def _adjust(self) -> None:
        """Looks as often, and at as many, as the listeners want."""
        looks = max((listener.wait_looks for listener in self._listeners), default=0.0)
        wanted = _THREAD_LOOKS_A_LOOK / looks if looks else _LONGEST_SECONDS
        self._wanted_seconds = self._seconds = min(_LONGEST_SECONDS, max(_SHORTEST_SECONDS, wanted))
        self._count = max(1, math.ceil(looks * _TASKS_A_THREAD_LOOK * self._wanted_seconds))

    def flush(self) -> None:
        """Nothing is pending: looks tell at once."""

    def set_wait_rates(self, block_rate_ns: int, mutex_fraction: int) -> None:
        """Its looks are what is recorded."""

    def close(self) -> None:
        self._listeners.clear()
        self._loops.clear()
        self._stacks.clear()

    def look(self) -> float | None:
        if not self._listeners:
            return None
        began = time.thread_time_ns()
        with reading_others():
            found = self._who_holds_up() if self._asks else self._where_tasks_wait()
        pause = self._jittered() if self._asks else _PATIENCE_SECONDS
        if not self._asks:
            self._ask_loops()
        self._asks = not self._asks
        self._stacks.make_room()
        if found:
            for listener in self._listeners:
                listener.receive_contentions(found)
        self._note_cost(time.thread_time_ns() - began)
        return pause

    def _note_cost(self, cost_ns: int) -> None:
        """One look in two is at who holds up loops, which costs little."""
        self.cost_ns += cost_ns
        self._look_ns += _COST_WEIGHT * (2 * cost_ns - self._look_ns)
        allowed = self._look_ns / 1e9 / _MOST_SHARE
        self._seconds = min(_LONGEST_SECONDS, max(self._wanted_seconds, allowed))

    # -- tasks ---------------------------------------------------------------------------------------------------

    def _where_tasks_wait(self) -> list[Contention]:
        now = time.monotonic_ns()
        elapsed, self._looked_ns = min(now - self._looked_ns, _LONGEST_ELAPSED_NS), now
        tasks, weight = self._some_tasks(self._count)
        self._random.shuffle(tasks)  # those that are left out are any
        found, walked = [], 0
        give_up = time.thread_time_ns() + _LONGEST_WALK_NS
        for task in tasks:
            walked += 1
            loop = task.get_loop()
            if id(loop) not in self._loops:
                self._loops[id(loop)] = _Loop(weakref.ref(loop))
            contention = self._wait_of(task, elapsed)
            if contention is not None:
                found.append(contention)
            if time.thread_time_ns() > give_up:
                break
        each = weight * len(tasks) / max(1, walked)
        return [one._replace(times=each, delay_ns=each * one.delay_ns) for one in found]

    def _wait_of(self, task: asyncio.Task[Any], elapsed: int) -> Contention | None:
        if task.done() or getattr(task, "_fut_waiter", None) is None:
            return None
        chain = (task, *parents(task))
        stack = self._known(chain) or self._read(chain)
        if stack is None:
            return None
        thread = self._thread_of(task.get_loop())
        return Contention(thread, stack, None, 1.0, elapsed, reason=Reason.AWAIT)

    def _known(self, chain: Sequence[asyncio.Task[Any]]) -> Stack | None:
        """Its stack, if it is one of those that have been read; none of them waits where somebody else measures it."""
        if self._reader is None:
            return None
        position: tuple[int, ...] = ()
        for task in chain:
            part = self._reader.suspended(task.get_coro())
            if part is None:
                return None
            position += part
        return self._stacks.known(position)

    def _read(self, chain: Sequence[asyncio.Task[Any]]) -> Stack | None:
        frames = suspended_frames(chain[0])
        if not frames or any(frame.f_code is self._measuring for frame in frames):
            return None
        for task in chain[1:]:
            frames += suspended_frames(task)
        return self._stacks.of(frames)

    def _some_tasks(self, count: int) -> tuple[list[asyncio.Task[Any]], float]:
        """About so many tasks at random, and how many of all each stands for."""
        found: list[asyncio.Task[Any]] = []
        total = 0
        for references in task_sets():
            total += len(references)
        if total == 0:
            return found, 0.0
        step = max(1, total // count)
        for references in task_sets():
            # Of a huge set a part is passed over.
            begin = self._random.randrange(max(1, len(references) - _MOST_PASSED + 1))
            start = begin + self._random.randrange(step)
            for entry in _picked(references, start, begin + _MOST_PASSED, step):
                task = entry() if isinstance(entry, weakref.ref) else entry
                if task is not None:
                    found.append(task)
        passed = min(total, _MOST_PASSED)
        return found, step * total / passed

    # -- loops ---------------------------------------------------------------------------------------------------

    def _ask_loops(self) -> None:
        now = time.monotonic_ns()
        for key, asked in list(self._loops.items()):
            loop = asked.loop()
            if loop is None or loop.is_closed():
                del self._loops[key]
            elif asked.answered:
                asked.answered, asked.asked_ns = False, now
                try:
                    loop.call_soon_threadsafe(asked.answer)
                except RuntimeError:
                    del self._loops[key]  # it has been closed just now

    def _who_holds_up(self) -> list[Contention]:
        late = [asked for asked in self._loops.values() if not asked.answered and asked.ident]
        if not late:
            return []
        frames, found = sys._current_frames(), []
        for asked in late:
            frame, loop = frames.get(asked.ident), asked.loop()
            stack = self._stacks.take(frame) if frame is not None else None
            if stack is None or loop is None or not loop.is_running():
                continue
            elapsed = int(self._seconds * 1e9)
            found.append(Contention(self._thread_of(loop), stack, None, 1.0, elapsed, reason=Reason.EVENT_LOOP))
        frames.clear()
        return found

    def _thread_of(self, loop: asyncio.AbstractEventLoop) -> Thread:
        known = self._loops.get(id(loop))
        thread = threading._active.get(known.ident) if known is not None else None  # type: ignore[attr-defined]
        return Thread(thread.name if thread is not None else "event loop", 0)

    def _jittered(self) -> float:
        return (self._seconds - _PATIENCE_SECONDS) * self._random.uniform(0.5, 1.5)


def _picked(references: set[Any], start: int, stop: int, step: int) -> list[Any]:
    """Every `step`th entry of a set that loops go on to change."""
    for _ in range(_TRIES):
        try:
            # One step of C: only what the garbage collector ends meanwhile can change the set.
            return list(islice(references, start, stop, step))
        except RuntimeError:
            continue
    return []
