"""What the garbage collector need not go through.

A collection of all objects takes longer the more of them there are, in the service's own threads, and comes the sooner
the more new ones stay. What is kept for as long as a profile is collected is left out: it holds nothing but numbers,
texts and more of its kind, and so is never part of a cycle.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

Kept = TypeVar("Kept")

_EXTENSION = "profiling_middleware.sampling._native"


def make_untracker() -> Callable[[Kept], Kept]:
    """What leaves an object out of collections from now on, tuples in it as well, and returns it.

    That is the extension's, if an engine has loaded it by now; without it nothing is left out.
    """
    native: Any = sys.modules.get(_EXTENSION)
    return native.untrack if native is not None else _as_it_is


def uncollected(kept: Kept) -> Kept:
    """`kept`, left out of collections if it can be: for what is not made often."""
    return make_untracker()(kept)


def _as_it_is(kept: Kept) -> Kept:
    return kept
