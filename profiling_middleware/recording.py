"""One capture being taken: who asked holds it, and may end or cancel it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from profiling_middleware.captures import Capture, CaptureMaker
from profiling_middleware.model import CaptureInfo
from profiling_middleware.pipeline import Request, Result
from profiling_middleware.timer import TimedCall


class TooManyCaptures(Exception):  # noqa: N818 - it says what is the case
    """As many captures on demand run already as are allowed at once."""


class CaptureCancelled(Exception):  # noqa: N818 - it says what is the case
    """Whoever asked for the capture has left; nothing was kept."""


class Taker(Protocol):
    """Who takes captures: the recorder."""

    def call_soon(self, action: Callable[[], object], /) -> None:
        """Runs `action` on the timer's thread."""

    def end(self, recording: Recording, reason: str, /) -> None:
        """Keeps what there is, marked partial with `reason`. On the timer's thread."""

    def cancel(self, recording: Recording, /) -> None:
        """Keeps nothing. On the timer's thread."""


class Recording:
    """One capture being taken. `result` gets its bytes; end it early, or cancel it, from any thread."""

    def __init__(
        self,
        taker: Taker,
        info: CaptureInfo,
        seconds: float,
        request: Request,
        *,
        cumulative: bool = False,
        make: CaptureMaker | None = None,
    ) -> None:
        self.info = info
        self.seconds = seconds
        self.cumulative = cumulative
        """Whether it has all that has been collected by its end, if anything is."""
        self.request = request
        self.result: Future[Result] = Future()
        # From here on nobody who waits for the future can cancel it by the way: cancel() below is the one way.
        self.result.set_running_or_notify_cancel()
        self._taker = taker
        self.make = make
        """None for what `CAPTURES` says."""
        self.capture: Capture | None = None
        self.end_call: TimedCall | None = None

    def end_early(self, reason: str) -> None:
        """Keeps what there is, marked partial with `reason`."""
        self._taker.call_soon(lambda: self._taker.end(self, reason))

    def cancel(self) -> None:
        """Keeps nothing: nobody waits for it any more."""
        self._taker.call_soon(lambda: self._taker.cancel(self))
