"""Waiting for something to become true, with a generous bound, instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], what: str, *, seconds: float = 30.0, pause: float = 0.05) -> T:
    """The first true answer of `probe`; an AssertionError with its last one when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}; the last answer was {answer!r}"
        time.sleep(pause)
    return answer
