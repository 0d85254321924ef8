"""What every source of a trace's events offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from profiling_middleware.trace_events import TraceEvent
from profiling_middleware.tracing.buffer import TraceBuffer


class TraceSource(Protocol):
    """Tells of what happens between `start` and `stop`. All calls come from the timer's thread."""

    @property
    def limits(self) -> tuple[str, ...]:
        """What it does not tell of here, in sentences."""

    def start(self, buffer: TraceBuffer, *, full: bool) -> None:
        """From now on tells `buffer`: everything if `full`, else what is long enough to matter. Also to change that."""

    def going_on(self) -> Sequence[TraceEvent]:
        """What has begun and not ended, as far as that is worth telling: events that end at 0."""

    def stop(self) -> None:
        """Tells nothing more, and puts back what was replaced. Called in a forked child, too."""
