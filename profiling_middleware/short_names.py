"""How long names may be that the service gives: of its tasks, threads, coroutines and routes."""

from __future__ import annotations

# An application may put a whole query into a task's name, and a trace keeps thousands of them.
_MOST = 200


def short_name(name: str) -> str:
    """The name, or its beginning and an ellipsis."""
    return name if len(name) <= _MOST else f"{name[: _MOST - 1]}…"
