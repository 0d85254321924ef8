"""Whom work is done for: the value of one ContextVar, which the native engine reads out of the running context.

Nothing is done at any await: tasks and threads that copy the context carry it along.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Protocol

from profiling_middleware.model import Label

Labels = tuple[Label, ...]


class Work(Protocol):
    """Something that is worked for, such as a request."""

    def labels(self) -> Labels | None:
        """What its samples are labelled with, the same object each time; None while that is not known yet."""


CURRENT: ContextVar[object] = ContextVar("profiling_middleware.work")
"""Holds what a LabelMaker makes of the Work that the running context is about."""

LabelMaker = Callable[[Work], object]
"""Makes of a Work the value that `CURRENT` must have, so that the engine sees it."""


def begin_work(make: LabelMaker, work: Work) -> Token[object]:
    """From here on what runs in this context, or in a copy of it, is done for `work`. To be given to `end_work`."""
    return CURRENT.set(make(work))


def end_work(token: Token[object]) -> None:
    """Undoes `begin_work`. In another context than that was called in, there is nothing to undo."""
    # As when a server lets go of a request half way, and whoever tidies up closes it.
    with contextlib.suppress(ValueError):
        CURRENT.reset(token)
