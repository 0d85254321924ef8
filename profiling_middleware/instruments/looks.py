"""When the instruments look: each at its own pace, and not at all while nobody listens to it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from profiling_middleware.instruments import Instrument
from profiling_middleware.timer import TimedCall, Timeline


class InstrumentLooks:
    """All calls come from the timer's thread."""

    def __init__(self, instruments: Sequence[Instrument], timeline: Timeline, logger: logging.Logger) -> None:
        self._instruments = instruments
        self._timeline = timeline
        self._logger = logger
        self._calls: dict[int, TimedCall] = {}

    def go_on(self) -> None:
        """Somebody may listen now: those that rest look."""
        for number, instrument in enumerate(self._instruments):
            if number not in self._calls:
                self._look(number, instrument)

    def _look(self, number: int, instrument: Instrument) -> None:
        self._calls.pop(number, None)
        try:
            pause = instrument.look()
        except Exception:
            self._logger.exception("profiling: %s failed and is left out", type(instrument).__name__)
            instrument.close()
            return
        if pause is not None:
            when = self._timeline.now() + pause
            self._calls[number] = self._timeline.call_at(when, partial(self._look, number, instrument))
