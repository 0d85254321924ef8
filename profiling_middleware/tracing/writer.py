"""Writes batches of what happened as chunks. Everything here happens on the thread that encodes traces."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain

from profiling_middleware.encoders.perfetto import PerfettoEncoder
from profiling_middleware.encoders.trace_items import TraceItem
from profiling_middleware.trace_events import RequestEvent, StepEvent, TraceEvent
from profiling_middleware.tracing.buffer import events_of
from profiling_middleware.tracing.drawing import Drawing
from profiling_middleware.tracing.requests import RequestSpan
from profiling_middleware.tracing.rows import NO_ROW
from profiling_middleware.tracing.seen import Seen
from profiling_middleware.tracing.sinks import Sink
from profiling_middleware.tracing.stalls import STALL_NS, Stalls
from profiling_middleware.tracing.states import ThreadStates

# While Python encodes, nothing else of the service runs: let go of the GIL long before the switch interval would. Not
# oftener than that, because each time costs both some dozens of microseconds.
_WORK_SECONDS, _REST_SECONDS = 0.001, 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What happened between two moments of the monotonic clock."""

    slots: list[object]
    """See `TraceBuffer`."""
    seen: Seen
    threads: Sequence[tuple[int, str]]
    """Native id and name of each that there is."""
    began_ns: int
    ended_ns: int
    full: bool
    """Everything is to be drawn."""
    final: bool
    """Nothing that has been seen by now comes later."""

    @property
    def weight(self) -> int:
        """How much memory it takes, in slots of some 40 bytes."""
        return len(self.slots) + self.seen.weight

    @property
    def size(self) -> int:
        """How much is lost with it."""
        return sum(1 for _ in events_of(self.slots)) + self.seen.size


OnSlow = Callable[[str], object]


class TraceWriter:
    """Keeps what has to be known from one chunk to the next."""

    def __init__(self, pid: int, process: str, slow_ns: int, on_slow: OnSlow) -> None:
        """`on_slow` is told why when a request took `slow_ns`, or a step held up its loop as long; 0 for never."""
        self._encoder = PerfettoEncoder(pid, process)
        self._drawing = Drawing()
        self._states = ThreadStates()
        self._stalls = Stalls()
        self._slow_ns, self._on_slow = slow_ns, on_slow
        self.hurry = False
        """Writes without pauses: the last chunks of a service that stops."""

    @property
    def dropped(self) -> int:
        """What was not drawn for want of a row, since the process started."""
        return self._drawing.dropped

    def write(self, batch: Batch, sinks: Sequence[Sink]) -> None:
        """Hands a batch's chunk to all sinks."""
        for tid, name in batch.threads:
            self._encoder.name_thread(tid, name)
        slow: list[str] = []
        chunk = self._encoded(self._items(batch, slow))
        for sink in sinks:
            sink.write(chunk, batch.began_ns, batch.ended_ns)
        for why in slow[:1]:
            self._on_slow(why)

    def last_chunk(self, in_flight: Iterable[RequestSpan], others: Iterable[TraceEvent], about: TraceItem) -> bytes:
        """What one trace alone ends with: the requests and all else that goes on, and what it is."""
        events = [span.event(0) for span in in_flight if span.row != NO_ROW]
        items = [item for event in (*events, *others) for item in self._drawing.event(event)]
        return self._encoded([*items, about])

    def forget(self) -> None:
        """Lets go of what was kept because it may come again: each time it listens the engine has new stacks."""
        self._encoder.forget()
        self._drawing.forget()
        self._states.forget()
        self._stalls.forget()

    def _items(self, batch: Batch, slow: list[str]) -> Iterator[TraceItem]:
        drawing, seen = self._drawing, batch.seen
        self._stalls.remember(seen.samples)
        for event in events_of(batch.slots):
            self._note_slow(event, slow)
            if isinstance(event, StepEvent) and event.ended_ns - event.began_ns >= STALL_NS:
                self._stalls.add(event)
            else:
                yield from drawing.event(event)
        yield from map(drawing.stall, self._stalls.take(batch.ended_ns, final=batch.final))
        yield from drawing.samples(seen.samples)
        # One by one: what is drawn is several times as big as what it is drawn of.
        drawn = chain(
            (drawing.state(state, full=batch.full) for state in self._states.of(seen.samples, idle=batch.full)),
            map(drawing.lock_wait, seen.lock_waits),
            map(drawing.task_lock_wait, seen.task_lock_waits),
        )
        yield from (one for one in drawn if one is not None)

    def _note_slow(self, event: TraceEvent, slow: list[str]) -> None:
        if not self._slow_ns or not isinstance(event, RequestEvent | StepEvent):
            return
        if isinstance(event, RequestEvent) and event.status == HTTPStatus.SWITCHING_PROTOCOLS:
            return  # a websocket lasts as long as its client wants
        if event.ended_ns - event.began_ns >= self._slow_ns:
            slow.append("slow request" if isinstance(event, RequestEvent) else "stall")

    def _encoded(self, items: Iterable[TraceItem]) -> bytes:
        since = time.perf_counter() if self.hurry else self._rested()

        def give_way() -> None:
            nonlocal since
            if not self.hurry and time.perf_counter() - since > _WORK_SECONDS:
                since = self._rested()

        return self._encoder.chunk(items, give_way)

    @staticmethod
    def _rested() -> float:
        time.sleep(_REST_SECONDS)
        return time.perf_counter()
