"""What a process has of memory, descriptors and threads."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple


class Usage(NamedTuple):
    threads: Counter[str]
    """How many of each of the system's names."""
    descriptors: frozenset[str]
    """Each with what it is of, such as a path."""
    timers: int


def usage() -> Usage:
    """What there is now."""
    return Usage(
        Counter(_comm(task) for task in Path("/proc/self/task").iterdir()),
        frozenset(filter(None, (_link(name) for name in os.listdir("/proc/self/fd")))),
        _timers(),
    )


def settled(before: Usage, seconds: float) -> Usage:
    """The same, once nothing is more than before, or when the time is over: threads need a moment to be gone."""
    until = time.monotonic() + seconds
    while (now := usage()) != before and time.monotonic() < until:
        time.sleep(0.05)
    return now


class Memory:
    """Resident memory over time."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def note(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self._points.append((time.monotonic(), pages * resource.getpagesize()))

    @property
    def last(self) -> int:
        return self._points[-1][1] if self._points else 0

    def slope(self) -> float:
        """Bytes a second over the second half of all points, by least squares."""
        points = self._points[len(self._points) // 2 :]
        if len(points) < 3:
            return 0.0
        mean_time = sum(when for when, _ in points) / len(points)
        mean_size = sum(size for _, size in points) / len(points)
        over = sum((when - mean_time) * (size - mean_size) for when, size in points)
        return over / sum((when - mean_time) ** 2 for when, _ in points)


def _comm(task: Path) -> str:
    try:
        return (task / "comm").read_text().strip()
    except OSError:
        return "ending"


def _link(name: str) -> str:
    try:
        target = os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""  # the descriptor of this very listing
    return f"{name} {target}"


def _timers() -> int:
    try:
        return Path("/proc/self/timers").read_text().count("ID: ")
    except OSError:
        return 0
