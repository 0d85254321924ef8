"""How long names may be that the service gives: of its tasks, threads, coroutines and routes."""

from __future__ import annotations

# An application may put a whole query into a task's name, and a trace keeps thousands of them.
MOST_CHARACTERS = 200


def short_name(name: str) -> str:
    """The name, or its beginning and an ellipsis."""
    return name if len(name) <= MOST_CHARACTERS else f"{name[: MOST_CHARACTERS - 1]}…"
