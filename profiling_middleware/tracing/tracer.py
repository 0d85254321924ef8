"""Takes what happens while anybody wants a trace; every few seconds it is encoded and handed to whoever does."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from profiling_middleware.encoders.trace_items import Value
from profiling_middleware.lane import Lane
from profiling_middleware.model import Body
from profiling_middleware.sampling.clocks import ThreadClocks
from profiling_middleware.short_names import short_name
from profiling_middleware.timer import TimedCall, Timeline
from profiling_middleware.trace_events import CounterEvent, TraceEvent
from profiling_middleware.tracing.buffer import COUNTER, REQUEST, TraceBuffer, ended_in, lasting
from profiling_middleware.tracing.counters import Counters
from profiling_middleware.tracing.drawing import Drawing
from profiling_middleware.tracing.requests import RequestSpan, RequestSpans
from profiling_middleware.tracing.seen import SeenThreads
from profiling_middleware.tracing.sinks import Sink, TraceFile
from profiling_middleware.tracing.sources import TraceSource
from profiling_middleware.tracing.writer import Batch, TraceWriter

_SECONDS = 1.0
LONG_TICKS = 4
"""What is long enough to matter is little, and each chunk has all names and tracks again."""
LIGHT = 25_000
"""The weight of a batch that may still wait for more, a second long: 1 MB."""
# What is written more slowly than it comes waits here, so many chunks of it; then it is dropped and counted.
QUEUED = 16
MOST_WAITING = 150_000
"""The weight of all that waits, the first batch excepted: 6 MB."""


class Hearing(Protocol):
    """The sampling engine and the instruments."""

    def attach(self, listener: SeenThreads, /) -> None:
        """From now on `listener` hears of everything."""

    def detach(self, listener: SeenThreads, /) -> None:
        """Hands it everything up to now, then nothing more."""

    def flush(self) -> None:
        """Hands out everything up to now."""


class Tracer:
    """All calls but what `lane` does come from the timer's thread."""

    def __init__(
        self,
        *,
        timeline: Timeline,
        lane: Lane,
        writer: TraceWriter,
        requests: RequestSpans,
        sources: Sequence[TraceSource],
        new_file: Callable[[], TraceFile],
    ) -> None:
        self._timeline, self._lane, self._writer = timeline, lane, writer
        self._requests, self._sources = requests, sources
        self.new_file = new_file
        self._counters = Counters(requests)
        self._buffer = TraceBuffer()
        self._sinks: dict[Sink, bool] = {}
        self._hearing: Hearing | None = None
        self._seen = SeenThreads()
        self._in_flight: list[RequestSpan] = []
        self._going_on: list[TraceEvent] = []
        self._call: TimedCall | None = None
        self._drained_ns = self._ticks = 0
        """When, and how many seconds ago."""
        self._lost = 0
        self._submitted = self._written = 0
        """The weight of all batches so far; the latter on the thread that writes them."""
        self._failed = 0
        """What was lost because it could not be written; on that thread, too."""
        self._dropped_then: int | None = None

    @property
    def dropped(self) -> int:
        """Events that found no room, or could not be written, since the process started."""
        found_no_room = self._buffer.dropped + self._seen.dropped + self._writer.dropped
        return found_no_room + self._lost + self._failed

    def dropped_by_then(self) -> int:
        """As `dropped`, and while a chunk is written as it was when what is in that was fetched, seconds ago maybe."""
        return self.dropped if self._dropped_then is None else self._dropped_then

    @property
    def limits(self) -> tuple[str, ...]:
        """What is not traced here, in sentences."""
        return tuple(limit for source in self._sources for limit in source.limits)

    def begin(self, sink: Sink, hearing: Hearing, *, full: bool) -> None:
        """From now on `sink` gets chunks, of everything if `full`, else of what is long enough to matter."""
        if self._sinks:
            self.drain()
        else:
            self._start(hearing)
        self._sinks[sink] = full
        try:
            self._tell_sources()
        except Exception:
            self.cancel(sink)  # nobody would end it
            raise

    def end(self, sink: Sink) -> None:
        """Hands `sink` everything up to now, then nothing more."""
        if sink not in self._sinks:
            return
        self.drain(flush=True)
        del self._sinks[sink]
        if self._sinks:
            self._tell_sources()
        else:
            self._stop()

    def cancel(self, sink: Sink) -> None:
        """`sink` gets nothing more."""
        if self._sinks.pop(sink, None) is not None and not self._sinks:
            self._lane.submit(self._forget)
            self._stop()

    def finish(self, file: TraceFile, about: Callable[[], Sequence[tuple[str, Value]]]) -> Future[Body]:
        """The trace of what has just been flushed: what goes on is drawn as going on, and `about` says what it is."""
        in_flight, self._in_flight = self._in_flight, []
        others, self._going_on = self._going_on, []
        body: Future[Body] = Future()

        def work() -> None:
            try:
                last = self._writer.last_chunk(in_flight, others, Drawing.about(now, about()))
                body.set_result(file.finish(last))
            except Exception as error:
                body.set_exception(error)
            finally:
                self._forget()

        now = time.monotonic_ns()
        if not self._lane.submit(work):
            body.set_exception(RuntimeError("traces are written too slowly on this machine"))
        return body

    def do(self, work: Callable[[], object]) -> bool:
        """Does `work` after all chunks up to now have been handed out; False when too much is to be done already."""
        return self._lane.submit(work)

    def drain(self, *, flush: bool = False) -> None:
        """Has everything up to now written; what the engine has seen only if it is made to `flush`."""
        if flush and self._hearing is not None:
            self._hearing.flush()
        in_flight: list[RequestSpan] = []
        going_on: list[TraceEvent] = []
        if flush:
            # Before what has ended is fetched: whatever ends meanwhile is in both, and not in neither.
            in_flight = self._requests.in_flight()
            going_on = [event for source in self._sources for event in source.going_on()]
        batch = Batch(
            slots=self._buffer.fetch(),
            seen=self._seen.take(),
            threads=_threads(),
            began_ns=self._drained_ns,
            ended_ns=time.monotonic_ns(),
            full=any(self._sinks.values()),
            final=flush,
        )
        self._drained_ns, self._ticks = batch.ended_ns, 0
        if flush:
            # Now, as it is forgotten when the last sink has ended.
            ended = ended_in(batch.slots)
            self._in_flight = [span for span in in_flight if (REQUEST, span.row, span.began_ns) not in ended]
            self._going_on = [event for event in going_on if lasting(event) not in ended]
        if not self._submit(batch, tuple(self._sinks)):
            self._lost += batch.size

    def _submit(self, batch: Batch, sinks: Sequence[Sink]) -> bool:
        weight, dropped = batch.weight, self.dropped

        def write() -> None:
            self._dropped_then = dropped
            try:
                self._writer.write(batch, sinks)
            except Exception:
                self._failed += batch.size
                raise
            finally:
                self._dropped_then = None
                self._written += weight

        waiting = self._submitted - self._written
        if (waiting and waiting + weight > MOST_WAITING) or not self._lane.submit(write):
            return False
        self._submitted += weight
        return True

    def _forget(self) -> None:
        # On the thread that writes, when all has been written.
        if not self._sinks:
            self._writer.forget()

    def hurry(self) -> None:
        """What is still to be written is written without pauses. From any thread."""
        self._writer.hurry = True

    def close(self) -> None:
        """Lets go of everything; in a forked child, too, where nobody writes what waits."""
        self._submitted = self._written
        self._sinks.clear()
        self._hearing = None  # whoever it is goes, too
        self._stop()

    def _start(self, hearing: Hearing) -> None:
        self._hearing = hearing
        self._buffer.fetch()
        self._seen.take()
        self._drained_ns = time.monotonic_ns()
        self._lane.keep()  # else each chunk would have a thread of its own
        self._counters.start()
        hearing.attach(self._seen)
        self._requests.start(self._buffer)
        self._plan()

    def _stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        for source in self._sources:
            source.stop()
        self._requests.stop()
        self._counters.stop()
        self._lane.release()
        hearing, self._hearing = self._hearing, None
        if hearing is not None:
            hearing.detach(self._seen)

    def _plan(self) -> None:
        self._call = self._timeline.call_at(self._timeline.now() + _SECONDS, self._tick)

    def _tick(self) -> None:
        # The next one is planned first: whatever fails below, it will come.
        self._plan()
        for name, time_ns, value in self._counters.read():
            self._buffer.add(COUNTER, *CounterEvent(name, time_ns, value))
        if self.dropped:
            self._buffer.add(COUNTER, *CounterEvent("dropped", time.monotonic_ns(), self.dropped))
        self._tell_sources()
        self._ticks += 1
        is_light = len(self._buffer) + self._seen.weight <= LIGHT
        if any(self._sinks.values()) or self._ticks >= LONG_TICKS or not is_light:
            self.drain()

    def _tell_sources(self) -> None:
        """Also what has been loaded since the last time."""
        full = any(self._sinks.values())
        for source in self._sources:
            source.start(self._buffer, full=full)


def _threads() -> list[tuple[int, str]]:
    return [
        (_native_id(thread, thread.native_id), short_name(thread.name))
        for thread in threading.enumerate()
        if thread.native_id is not None
    ]


def _native_id(thread: threading.Thread, native_id: int) -> int:
    # In a forked child `threading` still has the parent's number for its only thread, which has no clock here.
    if thread is threading.main_thread() and sys.platform == "linux" and ThreadClocks.cpu_ns(native_id) is None:
        return os.getpid()
    return native_id
