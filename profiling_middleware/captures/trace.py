"""Execution trace: what happened, moment by moment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from profiling_middleware.captures.comments import cost, identity
from profiling_middleware.captures.sources import Sources
from profiling_middleware.encoders.trace_items import Value
from profiling_middleware.model import CaptureInfo, Trace
from profiling_middleware.sampling.engine import EngineReport
from profiling_middleware.tracing.tracer import Tracer

_ABOUT_LENGTH = 1_000


class TraceCapture:
    """What happens from `begin` to `end`."""

    def __init__(self, sources: Sources, seconds: float, *, full: bool = False) -> None:
        """Everything if `full`, else what is long enough to matter."""
        self._sources, self._tracer = sources, _tracer(sources)
        self._full = full
        self._file = self._tracer.new_file()
        self._began = EngineReport()
        self._began_ns = self._dropped = 0

    def begin(self) -> None:
        """Starts to collect."""
        self._tracer.begin(self._file, self._sources, full=self._full)
        self._began, self._began_ns = self._sources.engine.report(), time.monotonic_ns()
        self._dropped = self._tracer.dropped

    def cancel(self) -> None:
        """Stops; nothing is kept."""
        self._tracer.cancel(self._file)

    def end(self, info: CaptureInfo) -> Trace:
        """Stops, and returns what was collected; its bytes come when they are written."""
        limits = (*self._sources.limits, *self._tracer.limits)
        self._tracer.end(self._file)
        report = self._sources.engine.report().since(self._began)
        lines = [
            *identity(info),
            f"detail: {'full' if self._full else 'what is long enough to matter'}",
            *cost(self._sources.engine, report, time.monotonic_ns() - self._began_ns),
            *(f"limit: {limit}" for limit in limits),
        ]

        def about() -> list[tuple[str, Value]]:
            # By then all of it has been written, or could not be.
            return _about(lines, self._tracer.dropped - self._dropped, self._file.left_out)

        return Trace(info=info, body=self._tracer.finish(self._file, about))


class LastSeconds:
    """What the flight recorder has kept by `end`."""

    def __init__(self, sources: Sources, seconds: float, *, last_seconds: float) -> None:
        """Raises ValueError when there is none."""
        flight = sources.flight
        if flight is None:
            raise ValueError("no trace is recorded all the time in this process")
        self._sources, self._tracer, self._flight = sources, _tracer(sources), flight
        self._last_ns = int(last_seconds * 1e9)

    def begin(self) -> None:
        """It is recorded already."""

    def cancel(self) -> None:
        """Nothing is to be stopped."""

    def end(self, info: CaptureInfo) -> Trace:
        """What there is; its bytes come when they are written."""
        tracer, flight, file = self._tracer, self._flight, self._tracer.new_file()
        limits = (*self._sources.limits, *tracer.limits)
        tracer.drain(flush=True)
        since_ns = time.monotonic_ns() - self._last_ns
        tracer.do(lambda: flight.copy_to(file, since_ns))
        lines = [
            *identity(info),
            f"asked for: the last {self._last_ns / 1e9:g} s, up to {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            *(f"limit: {limit}" for limit in limits),
        ]

        def about() -> list[tuple[str, Value]]:
            losses = flight.losses(since_ns)
            return _about(lines, losses.dropped, file.left_out + losses.left_out)

        return Trace(info=info, body=tracer.finish(file, about))


def _tracer(sources: Sources) -> Tracer:
    if sources.tracer is None:
        raise ValueError("nothing is traced in this process")
    return sources.tracer


def _about(lines: Sequence[str], dropped: int, left_out: int) -> list[tuple[str, Value]]:
    """What a reader finds beside the trace's first event, one argument a line."""
    losses = [
        f"dropped: {dropped} events found no room",
        f"left out: {left_out} chunks of about a second found no room",
    ]
    lost = [line for line, count in zip(losses, (dropped, left_out), strict=True) if count]
    times: Counter[str] = Counter()
    about: list[tuple[str, Value]] = []
    for line in (*lines, *lost):
        name, _, text = line.partition(": ")
        name, text = (name, text) if text else ("made by", name)
        times[name] += 1
        # Of several arguments of one name a reader shows the last one.
        about.append((name if times[name] == 1 else f"{name} {times[name]}", text[:_ABOUT_LENGTH]))
    return about
