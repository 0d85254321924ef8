"""Await chains: where a task waits, and who waits for it."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Iterator
from types import CellType, CoroutineType, FrameType
from typing import Any, Protocol

_DEEPEST = 128
_MOST_PARENTS = 16
_SUSPENDABLE = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


class ChainReader(Protocol):
    """The extension's, see `sampling/_native.pyi`: ids of code and instructions, without objects of frames."""

    def suspended(self, step: object, /) -> tuple[int, ...] | None: ...

    def running(self, leaf: FrameType, of_task: bool, /) -> tuple[int, ...] | None: ...


def suspended_frames(task: asyncio.Task[Any]) -> list[FrameType]:
    """Of a task that waits, leaf first."""
    frames: list[FrameType] = []
    step: Any = task.get_coro()
    while step is not None and len(frames) < _DEEPEST:
        frame, behind = _frame_and_behind(step)
        if frame is not None:
            frames.append(frame)
            step = behind
        else:
            # What `coro.__await__()` and an asynchronous generator's `asend()` return hides what it wraps.
            step = _wrapped(step)
    frames.reverse()
    return frames


def running_frames(frame: FrameType | None, most: int = _DEEPEST) -> list[FrameType]:
    """Of the task that runs now and has called this, leaf first, from `frame` on: what would wait if it did.

    Python makes an object of each: no more than are needed.
    """
    frames: list[FrameType] = []
    while frame is not None and frame.f_code.co_flags & _SUSPENDABLE and len(frames) < most:
        frames.append(frame)
        frame = frame.f_back
    return frames


def parents(task: asyncio.Task[Any]) -> Iterator[asyncio.Task[Any]]:
    """The task that waits for this one, the one that waits for that, and so on."""
    seen = {id(task)}
    for _ in range(_MOST_PARENTS):
        parent = _parent(task, depth=0)
        if parent is None or id(parent) in seen:
            return
        seen.add(id(parent))
        yield parent
        task = parent


def _parent(future: asyncio.Future[Any], depth: int) -> asyncio.Task[Any] | None:
    """Who is called when `future` is done, through whatever lies between."""
    for callback, _ in getattr(future, "_callbacks", None) or ():
        found = _behind(callback, depth)
        if found is not None:
            return found
    return None


def _behind(callback: Any, depth: int) -> asyncio.Task[Any] | None:
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return owner  # a task that awaits it
    # asyncio.TaskGroup, and the scope of anyio's
    for name in ("_parent_task", "_host_task"):
        host = getattr(owner, name, None)
        if isinstance(host, asyncio.Task):
            return host
    if depth >= 4:
        return None
    for thing in (*_cells(callback), *getattr(callback, "args", ())):
        # gather, shield, wait and wait_for have a future between, to which their callback is closed over or bound.
        if isinstance(thing, asyncio.Future) and not isinstance(thing, asyncio.Task):
            found = _parent(thing, depth + 1)
            if found is not None:
                return found
        scope = getattr(thing, "cancel_scope", None)
        host = getattr(scope, "_host_task", None)
        if isinstance(host, asyncio.Task):
            return host
    return None


def _cells(callback: Any) -> list[Any]:
    contents = []
    cells: tuple[CellType, ...] = getattr(callback, "__closure__", None) or ()
    for cell in cells:
        try:
            contents.append(cell.cell_contents)
        except ValueError:
            continue  # not set yet
    return contents


def _wrapped(step: Any) -> Any:
    for inner in gc.get_referents(step):
        if inspect.iscoroutine(inner) or inspect.isasyncgen(inner) or inspect.isgenerator(inner):
            return inner
    return None


def _frame_and_behind(step: Any) -> tuple[FrameType | None, Any]:
    """The frame of a coroutine or a generator, and what that awaits; None for anything else."""
    if isinstance(step, CoroutineType):  # most are
        return step.cr_frame, step.cr_await
    # Also those of Cython, which are of types of their own.
    for frame, behind in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
        found = getattr(step, frame, None)
        if found is not None:
            return found, getattr(step, behind, None)
    return None, None
