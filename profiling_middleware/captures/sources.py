"""What captures are taken from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiling_middleware.captures.collector import Collector
from profiling_middleware.instruments import Instrument
from profiling_middleware.sampling.engine import Engine, Listener
from profiling_middleware.tracing.flight import FlightRecorder
from profiling_middleware.tracing.tracer import Tracer


@dataclass(frozen=True, slots=True)
class Sources:
    """The process's engine and instruments, and what has been collected all the time."""

    engine: Engine
    instruments: Sequence[Instrument] = ()
    standing: Collector | None = None
    """None for a capture of what happens while it is taken, and where nothing is collected."""
    tracer: Tracer | None = None
    flight: FlightRecorder | None = None
    """None where no trace is recorded all the time."""

    @property
    def limits(self) -> tuple[str, ...]:
        """What they cannot know here, in sentences for the profile's comments."""
        of_instruments = (limit for instrument in self.instruments for limit in instrument.limits)
        return *self.engine.limits, *of_instruments

    def attach(self, listener: Listener) -> None:
        """From now on `listener` hears of all waits."""
        self.engine.attach(listener)
        for instrument in self.instruments:
            instrument.attach(listener)

    def detach(self, listener: Listener) -> None:
        """Hands `listener` everything up to now, then nothing more."""
        for instrument in self.instruments:
            instrument.detach(listener)
        self.engine.detach(listener)

    def flush(self) -> None:
        """Hands out everything up to now."""
        for instrument in self.instruments:
            instrument.flush()
        self.engine.flush()
