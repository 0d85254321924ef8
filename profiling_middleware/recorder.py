"""Captures are taken here: each begins and ends on the timer's thread and then goes into the pipeline."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import cast

from profiling_middleware.captures import CAPTURES, CUMULATIVE, Capture, CaptureMaker
from profiling_middleware.captures.sources import Sources
from profiling_middleware.captures.trace import LastSeconds
from profiling_middleware.instruments import Instrument
from profiling_middleware.instruments.looks import InstrumentLooks
from profiling_middleware.keys import new_capture_id
from profiling_middleware.last_failures import LastFailures
from profiling_middleware.model import CaptureInfo, Trigger
from profiling_middleware.pipeline import Pipeline, Request, Result
from profiling_middleware.recording import CaptureCancelled, Recording, TooManyCaptures
from profiling_middleware.sampling.cost import CostMeter
from profiling_middleware.sampling.engine import DEFAULT_BLOCK_RATE_NS, DEFAULT_MUTEX_FRACTION, Engine
from profiling_middleware.standing import Standing
from profiling_middleware.timer import TimerThread
from profiling_middleware.tracing.flight import FLIGHT_SECONDS
from profiling_middleware.tracing.tracer import Tracer

MAX_ON_DEMAND = 8
# A service that is slow all the time would fill its bucket.
SNAPSHOT_SECONDS = 60.0


class Recorder:
    """Begins captures, lets the engine look while there are any, and ends them."""

    def __init__(
        self,
        *,
        timer: TimerThread,
        make_engine: Callable[[], Engine],
        instruments: Sequence[Instrument] = (),
        tracer: Tracer | None = None,
        pipeline: Pipeline,
        service: str,
        instance: str,
        logger: logging.Logger,
    ) -> None:
        self._timer = timer
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._instruments = instruments
        self._instrument_looks = InstrumentLooks(instruments, timer.timeline, logger)
        self._tracer = tracer
        self._last_snapshot: float | None = None
        self._pipeline = pipeline
        self._service = service
        self._instance = instance
        self._logger = logger
        self._running: dict[str, Recording] = {}
        self._block_rate_ns, self._mutex_fraction = DEFAULT_BLOCK_RATE_NS, DEFAULT_MUTEX_FRACTION
        self._standing = Standing(instruments, tracer)
        self._looking = False
        self._on_demand = 0
        self._on_demand_lock = threading.Lock()
        self.failed = 0
        self.failures = LastFailures()
        self.cost = CostMeter()
        """What the engine has used."""
        self._apply_wait_rates()

    @property
    def engine(self) -> Engine:
        """The engine, made when it is first needed. On the timer's thread."""
        if self._engine is None:
            self._engine = self._make_engine()
            self._engine.set_wait_rates(self._block_rate_ns, self._mutex_fraction)
            self.cost.begin(self._engine.report().cpu_ns)
        return self._engine

    @property
    def engine_in_use(self) -> tuple[str, float] | None:
        """The engine's name, and its looks a second; None while there is none. From any thread."""
        engine = self._engine
        return (engine.name, engine.rate_used) if engine is not None else None

    @property
    def running(self) -> int:
        """How many captures are being taken. From any thread."""
        return len(self._running)

    def set_block_rate(self, nanoseconds: int) -> None:
        """See `Engine.set_wait_rates`. On the timer's thread."""
        self._block_rate_ns = nanoseconds
        self._apply_wait_rates()

    def set_mutex_fraction(self, fraction: int) -> None:
        """Likewise."""
        self._mutex_fraction = fraction
        self._apply_wait_rates()

    @property
    def collects(self) -> bool:
        """Whether the cumulative kinds are collected all the time."""
        return self._standing.collects

    @property
    def keeps_flight(self) -> bool:
        """Whether the last seconds of the trace are kept all the time."""
        return self._standing.keeps_flight

    def keep_flight(self) -> None:
        """Begins to keep them. On the timer's thread."""
        self._standing.keeps_flight = True
        self._standing.go_on(self.engine)
        self._look_on()

    def snapshot(self, why: str) -> None:
        """Stores what the flight recorder has, unless it has just been done. On the timer's thread."""
        now = self._timer.timeline.now()
        if self._last_snapshot is not None and now - self._last_snapshot < SNAPSHOT_SECONDS:
            return
        self._last_snapshot = now
        info = self._info("trace", time.time_ns(), cast(Trigger, why))
        make = partial(LastSeconds, last_seconds=FLIGHT_SECONDS)
        self._begin([Recording(self, info, 0.0, Request(upload=True, own_key_only=True), make=make)], now)

    def collect(self) -> None:
        """Begins to collect the cumulative kinds. On the timer's thread."""
        self._standing.collects = True
        self._standing.go_on(self.engine)
        self._look_on()

    def on_demand(
        self, kind: str, seconds: float | None, request: Request, make: CaptureMaker | None = None
    ) -> Recording:
        """Begins one capture now, or without `seconds` takes what has been collected. From any thread.

        `make` makes it, if not what `CAPTURES` says. Raises TooManyCaptures.
        """
        with self._on_demand_lock:
            if self._on_demand >= MAX_ON_DEMAND:
                raise TooManyCaptures(f"{MAX_ON_DEMAND} captures on demand are running: try again when one ends")
            self._on_demand += 1
        info = self._info(kind, time.time_ns(), "on demand")
        recording = Recording(self, info, seconds or 0.0, request, cumulative=seconds is None, make=make)
        recording.result.add_done_callback(self._release)
        if not self._timer.call_soon(lambda: self._begin([recording], self._timer.timeline.now() + recording.seconds)):
            recording.result.set_exception(RuntimeError("the interpreter is exiting: nothing can be captured any more"))
        return recording

    def window(self, kinds: Sequence[str], end: float) -> list[Recording]:
        """Begins a periodic window of several kinds, until `end` on the timer's clock. On the timer's thread."""
        started_ns, seconds = time.time_ns(), end - self._timer.timeline.now()
        request = Request(upload=True, own_key_only=False)
        infos = {kind: self._info(kind, started_ns, "periodic") for kind in kinds}
        recordings = [
            Recording(self, info, seconds, request, cumulative=kind in CUMULATIVE) for kind, info in infos.items()
        ]
        self._begin(recordings, end)
        return recordings

    def end_all(self, reason: str) -> None:
        """Ends everything that runs, marked partial. On the timer's thread."""
        for recording in list(self._running.values()):
            self.end(recording, reason)

    def end_windows(self, reason: str) -> None:
        """Ends what is periodic, marked partial, and nothing is collected any more. On the timer's thread.

        Captures on demand go on.
        """
        for recording in list(self._running.values()):
            if recording.info.trigger == "periodic":
                self.end(recording, reason)
        try:
            self._standing.end(self._engine)
        except Exception as error:
            self._abandon_engine(error)
            raise
        if not self._is_busy:
            self.cost.rest()

    def end(self, recording: Recording, reason: str | None = None) -> None:
        """Ends one capture and hands it on, marked partial if there is a `reason`. On the timer's thread."""
        capture = self._drop(recording)
        if capture is None:
            return
        info = replace(recording.info, partial=reason)
        try:
            recorded = capture.end(info)
            self._note_cost()
        except Exception as error:
            self._fail(recording, error)
            self._abandon_engine(error)
            return
        self._pipeline.submit(recorded, recording.request, recording.result)

    def cancel(self, recording: Recording) -> None:
        """Ends one capture and forgets it. On the timer's thread."""
        capture = self._drop(recording)
        if capture is not None:
            try:
                capture.cancel()
            except Exception as error:
                self._abandon_engine(error)
                raise
            finally:
                recording.result.set_exception(CaptureCancelled())

    def call_soon(self, action: Callable[[], object]) -> None:
        """Runs `action` on the timer's thread."""
        self._timer.call_soon(action)

    def pause(self) -> None:
        """Before a fork; see `Engine.pause`."""
        engine = self._engine
        if engine is not None:
            engine.pause()

    def resume(self) -> None:
        """After a fork, in the parent."""
        engine = self._engine
        if engine is not None:
            engine.resume()

    def close(self) -> None:
        """Lets go of what the engine holds open. On the timer's thread, or in a forked child."""
        engine, self._engine = self._engine, None
        self._standing.forget()
        if self._tracer is not None:
            self._tracer.close()
        for instrument in self._instruments:
            instrument.close()
        if engine is not None:
            engine.close()

    def _apply_wait_rates(self) -> None:
        if self._engine is not None:
            self._engine.set_wait_rates(self._block_rate_ns, self._mutex_fraction)
        for instrument in self._instruments:
            instrument.set_wait_rates(self._block_rate_ns, self._mutex_fraction)

    def _info(self, kind: str, started_ns: int, trigger: Trigger) -> CaptureInfo:
        return CaptureInfo(
            kind=kind,
            service=self._service,
            instance=self._instance,
            capture_id=new_capture_id(),
            started_ns=started_ns,
            trigger=trigger,
        )

    def _begin(self, recordings: Sequence[Recording], end: float) -> None:
        for recording in recordings:
            try:
                self._standing.go_on(self.engine)
                collector = self._standing.collector if recording.cumulative else None
                sources = Sources(self.engine, self._instruments, collector, self._tracer, self._standing.flight)
                make = recording.make or CAPTURES[recording.info.kind]
                recording.capture = make(sources, recording.seconds)
                recording.capture.begin()
            except Exception as error:
                self._fail(recording, error)
                continue
            self._running[recording.info.capture_id] = recording
            recording.end_call = self._timer.timeline.call_at(end, partial(self.end, recording))
        if self._is_busy:
            self._look_on()

    @property
    def _is_busy(self) -> bool:
        return bool(self._running) or self._standing.is_busy

    def _look_on(self) -> None:
        if not self._looking:
            self._looking = True
            self._look()
        self._instrument_looks.go_on()

    def _drop(self, recording: Recording) -> Capture | None:
        if self._running.pop(recording.info.capture_id, None) is None:
            return None
        if recording.end_call is not None:
            recording.end_call.cancel()
        return recording.capture

    def _look(self) -> None:
        if not self._is_busy:
            self._looking = False
            self.cost.rest()
            return
        try:
            pause = self.engine.look()
            if self.cost.is_due(self._timer.timeline.now()):
                self._note_cost()
        except Exception as error:
            self._looking = False
            self._abandon_engine(error)
            return
        self._timer.timeline.call_at(self._timer.timeline.now() + pause, self._look)

    def _note_cost(self) -> None:
        self.cost.note(self._timer.timeline.now(), self.engine.report().cpu_ns)

    def _fail(self, recording: Recording, error: Exception) -> None:
        self.failed += 1
        self.failures.note("capture", f"{recording.info.kind}: {type(error).__name__}; the log says why")
        self._logger.error(
            "profiling: capture kind=%s capture=%s failed; the service is not affected",
            recording.info.kind,
            recording.info.capture_id,
            exc_info=error,
        )
        recording.result.set_exception(error)

    def _abandon_engine(self, error: Exception) -> None:
        # What failed in it left it in an unknown state: the next capture begins with a fresh one.
        for recording in list(self._running.values()):
            self._drop(recording)
            self._fail(recording, error)
        self.close()

    def _release(self, _: Future[Result]) -> None:
        with self._on_demand_lock:
            self._on_demand -= 1
