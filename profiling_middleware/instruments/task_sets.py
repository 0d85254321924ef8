"""Where asyncio keeps its tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any


def task_sets() -> Iterator[set[Any]]:
    """Sets of tasks, or of weak references to them: Lib/asyncio/tasks.py of 3.11, and of 3.12 and 3.13."""
    tasks: Any = asyncio.tasks
    for name in ("_all_tasks", "_scheduled_tasks"):
        weak = getattr(tasks, name, None)
        references = getattr(weak, "data", None)
        if isinstance(references, set):
            yield references
    eager = getattr(tasks, "_eager_tasks", None)
    if isinstance(eager, set):
        yield eager
