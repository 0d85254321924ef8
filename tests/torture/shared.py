"""Functions that every family calls: between the frames of two families they look the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def spin(turns: int) -> int:  # called by anything
    """Stays for a moment in two lines."""
    total = 0
    for number in range(turns):
        total += number
    return total


def middle(function: Callable[[], T]) -> T:  # called by anything
    """Calls a function that says `called by middle`."""
    return function()
