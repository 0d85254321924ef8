"""The periodic trigger: a window every interval, at a fixed rate."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from profiling_middleware.timer import TimedCall, Timeline


class Schedule:
    """Opens window n at start + n · interval on the timeline's clock, whatever became of the windows before it."""

    def __init__(
        self,
        timeline: Timeline,
        interval: float,
        duration: float,
        open_window: Callable[[float], object],
        logger: logging.Logger,
    ) -> None:
        """`open_window` gets the time on the timeline's clock at which its window ends. Times in seconds."""
        self._timeline = timeline
        self._interval = interval
        self._duration = duration
        self._open_window = open_window
        self._logger = logger
        self._origin = 0.0
        self._call: TimedCall | None = None
        self.missed = 0

    @property
    def next_start(self) -> float | None:
        """When the next window opens, on the timeline's clock; None when stopped."""
        return self._call.when if self._call is not None else None

    def start(self) -> None:
        """Opens the first window at once: start-up is worth seeing, and hosts started apart stay apart."""
        self._origin = self._timeline.now()
        self._plan(0)

    def stop(self) -> None:
        """Opens no further window; one that is open stays open."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _plan(self, number: int) -> None:
        def open_now() -> None:
            self._open(number)

        self._call = self._timeline.call_at(self._origin + number * self._interval, open_now)

    def _open(self, number: int) -> None:
        now = self._timeline.now()
        due = max(number, math.floor((now - self._origin) / self._interval))
        # The next one is planned first: whatever fails below, it will open.
        self._plan(due + 1)
        if due > number:
            self.missed += due - number
            self._logger.warning("profiling: %d windows missed: the process was not running", due - number)
        end = self._origin + due * self._interval + self._duration
        if now < end:
            self._open_window(end)
        else:
            self.missed += 1
            self._logger.warning("profiling: 1 window missed: it was over before the process ran again")
