"""Whom work is done for: the value of one ContextVar, which the native engine reads out of the running context.

Nothing is done at any await: tasks and threads that copy the context carry it along.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiling_middleware.model import Label

Labels = tuple["Label", ...]

Resolve = Callable[[Any], Labels | None]
"""What a subject's samples are labelled with, the same object each time; None while that is not known yet."""

LabelMaker = Callable[[Resolve, Any], object]
"""Makes of a subject, such as a request, the value that `CURRENT` must have so that the engine sees it."""


class Served:
    """A request as it is asked for its labels. Once it has ended it is nothing but those.

    What was begun in its context may last for ever, as a timer or a task does, and holds this.
    """

    __slots__ = ("_asks", "_labels")

    def __init__(self, resolve: Resolve, subject: Any) -> None:
        self._asks: tuple[Resolve, Any] | None = (resolve, subject)
        self._labels: Labels | None = None

    def labels(self) -> Labels | None:
        """Those that are known now; None while it goes on and they are not. From any thread."""
        asks = self._asks
        return self._labels or asks[0](asks[1]) if asks is not None else self._labels

    def note(self) -> None:
        """Keeps those that are known now: Flask forgets the rule before the server has the body."""
        if self._asks is not None:
            self._labels = self.labels()

    def end(self) -> None:
        """It has been served: what is not known by now never will be."""
        asks = self._asks
        if asks is None:
            return
        try:
            self._labels = self._labels or asks[0](asks[1]) or ()
        except Exception:
            self._labels = ()  # an application's own routes are asked: what they do is no failure of ours
        self._asks = None  # at last, as others may be asking


class RequestLabels:
    """What makes the labels of requests now, for the middlewares that serve them. From any thread."""

    def __init__(self) -> None:
        self.maker: LabelMaker | None = None
        """None while requests are not labelled: profiling is off, or the engine cannot read labels."""
        self._changed: list[Callable[[LabelMaker | None], object]] = []

    def on_change(self, tell: Callable[[LabelMaker | None], object]) -> None:
        """From now on `tell` is called with the maker whenever there is another one, and now."""
        self._changed.append(tell)
        tell(self.maker)

    def label_with(self, maker: LabelMaker | None) -> None:
        """From now on requests are labelled by it; None: not any more."""
        self.maker = maker
        for tell in list(self._changed):
            tell(maker)


CURRENT: ContextVar[object] = ContextVar("profiling_middleware.work")
"""Holds what a LabelMaker made of whom the running context works for."""


def labels_of(work: object) -> Labels:
    """The labels of a value that `CURRENT` has had, as far as they are known now."""
    if work is None:
        return ()
    try:
        return work.labels() or ()  # type: ignore[attr-defined]
    except Exception:
        return ()  # an application's own routes are asked: what they do ends no capture


def end_work(token: Token[Any]) -> None:
    """Undoes a variable's `set()`. In another context than that was called in, there is nothing to undo."""
    try:  # noqa: SIM105 - on every request's way, and suppress() is slow
        token.var.reset(token)
    except ValueError:
        pass  # a server let go of a request half way, and whoever tidied up closed it
