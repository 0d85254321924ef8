"""What is collected all the time while profiling is on: the sums of all waits, and the last seconds of the trace."""

from __future__ import annotations

from collections.abc import Sequence

from profiling_middleware.captures.collector import Collector
from profiling_middleware.captures.sources import Sources
from profiling_middleware.instruments import Instrument
from profiling_middleware.sampling.engine import Engine
from profiling_middleware.tracing.flight import FlightRecorder
from profiling_middleware.tracing.tracer import Tracer

# 600 in a window of two minutes; a difference has looks of its own.
STANDING_LOOKS_A_SECOND = 5.0


class Standing:
    """All calls come from the timer's thread."""

    def __init__(self, instruments: Sequence[Instrument], tracer: Tracer | None) -> None:
        self._instruments, self._tracer = instruments, tracer
        self.collects = False
        """Whether the cumulative kinds are to be collected."""
        self.keeps_flight = False
        """Whether the last seconds of the trace are to be kept."""
        self.collector: Collector | None = None
        self.flight: FlightRecorder | None = None

    @property
    def is_busy(self) -> bool:
        """Whether anything is collected."""
        return self.collector is not None or self.flight is not None

    def go_on(self, engine: Engine) -> None:
        """Begins what is wanted and does not run: after a failure in the engine anew, and it says since when."""
        if self.collects and self.collector is None:
            collector = Collector(STANDING_LOOKS_A_SECOND, engine.report())
            Sources(engine, self._instruments).attach(collector)
            self.collector = collector
        if self.keeps_flight and self.flight is None and self._tracer is not None:
            flight = FlightRecorder(self._tracer.dropped_by_then)
            self._tracer.begin(flight, Sources(engine, self._instruments), full=False)
            self.flight = flight

    def end(self, engine: Engine | None) -> None:
        """Nothing is wanted any more, and what there is is forgotten. Without an engine there is nothing."""
        self.collects = self.keeps_flight = False
        collector, flight = self.collector, self.flight
        self.forget()
        if collector is not None and engine is not None:
            Sources(engine, self._instruments).detach(collector)
        if flight is not None and self._tracer is not None:
            self._tracer.cancel(flight)

    def forget(self) -> None:
        """The engine that told of it is no more."""
        self.collector = self.flight = None
