"""What captures are taken from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiling_middleware.captures.collector import Collector
from profiling_middleware.instruments import Instrument
from profiling_middleware.sampling.engine import Engine


@dataclass(frozen=True, slots=True)
class Sources:
    """The process's engine and instruments, and what has been collected all the time."""

    engine: Engine
    instruments: Sequence[Instrument] = ()
    standing: Collector | None = None
    """None for a capture of what happens while it is taken, and where nothing is collected."""

    @property
    def limits(self) -> tuple[str, ...]:
        """What they cannot know here, in sentences for the profile's comments."""
        of_instruments = (limit for instrument in self.instruments for limit in instrument.limits)
        return *self.engine.limits, *of_instruments

    def attach(self, collector: Collector) -> None:
        """From now on `collector` hears of all waits."""
        self.engine.attach(collector)
        for instrument in self.instruments:
            instrument.attach(collector)

    def detach(self, collector: Collector) -> None:
        """Hands `collector` everything up to now, then nothing more."""
        for instrument in self.instruments:
            instrument.detach(collector)
        self.engine.detach(collector)

    def flush(self) -> None:
        """Hands out everything up to now."""
        for instrument in self.instruments:
            instrument.flush()
        self.engine.flush()
