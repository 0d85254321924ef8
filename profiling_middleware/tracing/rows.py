"""Rows in which things are drawn that overlap: each has one to itself for as long as it lasts."""

from __future__ import annotations

MOST_ROWS = 1_000
NO_ROW = -1


class Rows:
    """Numbers from 0 on, given back when they are free again. From any thread: each step is one of C."""

    def __init__(self, limit: int = MOST_ROWS) -> None:
        self._free: list[int] = []
        self._fresh = iter(range(limit))

    def take(self) -> int:
        """A row that nobody has; NO_ROW when too many are taken."""
        try:
            return self._free.pop()
        except IndexError:
            return next(self._fresh, NO_ROW)

    def give_back(self, row: int) -> None:
        """Somebody else may have it now."""
        if row != NO_ROW:
            self._free.append(row)
