"""A task of asyncio's C code and the two callables through which it goes on, for `csrc/steps.c` to learn from."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


class _Loop:
    """All that a task asks of its loop."""

    def __init__(self) -> None:
        self.soon: list[Callable[..., object]] = []

    def get_debug(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., object], *_arguments: object, context: object = None) -> None:
        self.soon.append(callback)


async def _wait_for(future: Any) -> None:
    await future


def of_steps() -> tuple[Any, Any, Any, Any] | None:
    """A future, a task that waited for it, what took the task's first step, and what the future woke it with.

    None when `_asyncio` is not loaded; of one that is not as it is known this raises anything. The task is done, and
    asyncio has forgotten it.
    """
    module: Any = sys.modules.get("_asyncio")
    if module is None:
        return None
    loop = _Loop()
    future = module.Future(loop=loop)
    waiting = _wait_for(future)
    try:
        # Tasks that have no name are counted.
        task = module.Task(waiting, loop=loop, name="specimen")
        task._log_destroy_pending = False
        module._unregister_task(task)
        (step,) = loop.soon
        step()
        ((wakeup, _),) = future._callbacks
        future.set_result(None)
        wakeup(future)
        if not task.done():
            raise ValueError("the task did not go on")
    finally:
        waiting.close()
        loop.soon.clear()
    return future, task, step, wakeup
