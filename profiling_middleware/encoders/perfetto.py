"""What was traced to Perfetto's protobuf, chunk by chunk, as ui.perfetto.dev and trace_processor read it.

Each chunk can be read without those before and after: it begins with the clocks, and has all names that it uses. Within
it packets are in the order of time, since each says only how much later it is than the one before. Slices are written
when they have ended, or as going on; the reader sorts.

Source of the field numbers: trace_packet.proto, track_event/track_event.proto, track_event/debug_annotation.proto,
clock_snapshot.proto and profiling/profile_packet.proto in
https://github.com/google/perfetto/tree/main/protos/perfetto/trace
"""

from __future__ import annotations

import secrets
import struct
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from profiling_middleware.encoders.interning import (
    ANNOTATION_NAMES,
    ANNOTATION_VALUES,
    CATEGORIES,
    EVENT_NAMES,
    MOST_BYTES,
    MOST_ENTRIES,
    Stacks,
    Texts,
)
from profiling_middleware.encoders.packets import (
    MICROSECOND,
    MONOTONIC,
    PACKET,
    TIMESTAMP_CLOCK,
    TRACK_EVENT,
    later,
    new_packets,
)
from profiling_middleware.encoders.protobuf import integer, message, tagged, varint
from profiling_middleware.encoders.trace_items import Count, Instant, Slice, StackSample, TraceItem, Value
from profiling_middleware.encoders.tracks import Track, Tracks
from profiling_middleware.model import Stack
from profiling_middleware.uncollected import uncollected

# TracePacket
_CLOCK_SNAPSHOT, _SEQUENCE_ID, _INTERNED_DATA, _SEQUENCE_FLAGS = 6, 10, 12, 13
_PACKET_DEFAULTS, _TRACK_DESCRIPTOR, _MODULE_SYMBOLS, _PERF_SAMPLE = 59, 60, 61, 66
_STATE_CLEARED = 1
# ClockSnapshot, Clock
_CLOCKS, _CLOCK_ID, _CLOCK_TIME, _IS_INCREMENTAL, _MULTIPLIER_NS = 1, 1, 2, 3, 4
_REALTIME, _BOOTTIME, _OURS = 1, 6, 64
# TrackEvent
_CATEGORY_IID, _ANNOTATION, _TYPE, _NAME_IID, _TRACK_UUID, _COUNTER, _DOUBLE_COUNTER = 3, 4, 9, 10, 11, 30, 44
_BEGIN, _END, _INSTANT, _COUNTS = 1, 2, 3, 4
# DebugAnnotation
_ANNOTATION_NAME_IID, _INT, _VALUE_IID = 1, 4, 17
# PerfSample
_SAMPLE_PID, _SAMPLE_TID, _CALLSTACK, _CPU_MODE = 2, 3, 4, 5
_USER = 2

_FIXED64 = 1
_packet, _event, _annotation = tagged(PACKET), tagged(TRACK_EVENT), tagged(_ANNOTATION)
_sample, _INT_TAG = tagged(_PERF_SAMPLE), varint(_INT << 3)
_BEGIN_EVENT, _END_EVENT = integer(_TYPE, _BEGIN), integer(_TYPE, _END)
# So many pieces of some microseconds each, and whoever wants to may pause.
_PIECES = 8
# Two clocks are not read at the same time. A machine that was asleep is another matter.
_CLOCK_JITTER_NS = 1_000_000

_Arguments = tuple[tuple[str, Value], ...]


class _Row:
    """A track, as the events on it begin and as they end."""

    __slots__ = ("begin", "chunk", "end")

    def __init__(self, number: bytes) -> None:
        self.begin, self.end = _BEGIN_EVENT + number, _event(_END_EVENT + number)
        self.chunk = 0
        """The last one that has it."""


class _Description:
    """What an event says of itself, and the texts that this refers to."""

    __slots__ = ("chunk", "content", "texts")

    def __init__(self, content: bytes, texts: tuple[tuple[Texts, str], ...]) -> None:
        self.content, self.texts = content, texts
        self.chunk = 0


class _Place:
    """A thread on a stack."""

    __slots__ = ("chunk", "event")

    def __init__(self, event: bytes) -> None:
        self.event = event
        self.chunk = 0


class PerfettoEncoder:
    """One process's packets. Whoever writes several chunks uses the same one for all."""

    def __init__(self, pid: int, process: str) -> None:
        """`process` is how the reader calls it."""
        self._pid = pid
        self._tracks = Tracks(pid, process)
        self._categories = Texts(CATEGORIES)
        self._names = Texts(EVENT_NAMES)
        self._keys = Texts(ANNOTATION_NAMES)
        self._values = Texts(ANNOTATION_VALUES)
        self._stacks = Stacks()
        # Other processes have other numbers, so that two traces can be put one behind the other.
        self._sequence_number = secrets.randbits(27) + 1
        self._sequence = b""
        # Most of what happens has happened before, and is encoded already.
        self._rows: dict[Track, _Row] = {}
        self._descriptions: dict[tuple[str, str, _Arguments], _Description] = {}
        self._places: dict[tuple[int, Stack], _Place] = {}
        self._measures: dict[str, bytes] = {}
        self._last_base = 0
        self._boot_offset_ns = _clocks_now()[1]
        self._flow_base = secrets.randbits(31) << 32
        self._packets = new_packets(self._flow_base)

    def name_thread(self, tid: int, name: str) -> None:
        """How a thread is called in chunks from now on."""
        self._tracks.name_thread(tid, name)

    def forget(self) -> None:
        """Lets go, between two chunks, of what was kept because it may come again."""
        for table in self._tables():
            table.clear()

    def chunk(self, items: Iterable[TraceItem], give_way: Callable[[], None]) -> bytes:
        """The chunk of these items; calls `give_way` every some microseconds, which may pause."""
        # On a sequence of its own: two windows that follow each other share a chunk, and when they are put one behind
        # the other a reader refuses what comes later on a sequence whose clock goes back.
        self._sequence_number += 1
        self._sequence = integer(_SEQUENCE_ID, self._sequence_number)
        self._packets = new_packets(self._flow_base)
        for number, item in enumerate(items):
            if isinstance(item, Slice):
                self._add_slice(item)
            else:
                self._packets.moment(item.time_ns, self._moment(item))
            if not number % _PIECES:
                give_way()
        base = self._base()
        parts = [self._head(base)]
        parts += [self._packet(message(_TRACK_DESCRIPTOR, one)) for one in self._tracks.take()]
        stacks, symbols = self._stacks.take()
        texts = b"".join(texts.take() for texts in (self._categories, self._names, self._keys, self._values))
        parts.append(self._packet(message(_INTERNED_DATA, texts + stacks)))
        parts.append(self._packets.take(base, self._sequence))
        # After the stacks that they are of.
        parts += [self._packet(later(0) + message(_MODULE_SYMBOLS, one)) for one in symbols]
        self._make_room()
        return b"".join(parts)

    def _base(self) -> int:
        """The moment, in microseconds, from which a chunk counts: that of its first packet.

        But later than any before, as readers refuse clocks that go back. What began earlier says when by itself.
        """
        self._last_base = max(self._packets.first_us(), self._last_base + 1)
        return self._last_base

    def _make_room(self) -> None:
        if self._values.size > MOST_BYTES or any(len(table) > MOST_ENTRIES for table in self._tables()):
            self.forget()

    def _tables(self) -> tuple[Texts | Stacks | dict[Any, Any], ...]:
        return self._names, self._values, self._stacks, self._rows, self._descriptions, self._places

    # -- packets -------------------------------------------------------------------------------------------------

    def _packet(self, content: bytes) -> bytes:
        return _packet(content + self._sequence)

    def _head(self, first_us: int) -> bytes:
        """Forgets what was before on this sequence, and says what time it is on all clocks."""
        defaults = message(_PACKET_DEFAULTS, integer(TIMESTAMP_CLOCK, _OURS))
        first_ns = first_us * MICROSECOND
        clocks_now = _clocks_now()
        if abs(clocks_now[1] - self._boot_offset_ns) > _CLOCK_JITTER_NS:
            self._boot_offset_ns = clocks_now[1]
        ours = integer(_CLOCK_ID, _OURS) + integer(_CLOCK_TIME, first_us)
        ours += integer(_IS_INCREMENTAL, 1) + integer(_MULTIPLIER_NS, MICROSECOND)
        clocks = message(_CLOCKS, ours) + _clock(MONOTONIC, first_ns)
        clocks += _clock(_BOOTTIME, first_ns + self._boot_offset_ns) + _clock(_REALTIME, first_ns + clocks_now[0])
        return self._packet(integer(_SEQUENCE_FLAGS, _STATE_CLEARED) + defaults) + self._packet(
            message(_CLOCK_SNAPSHOT, clocks)
        )

    def _moment(self, item: Instant | Count | StackSample) -> bytes:
        if isinstance(item, StackSample):
            return self._place(item.tid, item.stack)
        if isinstance(item, Count):
            event = integer(_TYPE, _COUNTS) + self._track(item.track)
            if item.value == int(item.value):
                event += varint(_COUNTER << 3) + varint(int(item.value))
            else:
                event += varint(_DOUBLE_COUNTER << 3 | _FIXED64) + struct.pack("<d", item.value)
            return _event(event)
        return _event(
            integer(_TYPE, _INSTANT)
            + self._track(item.track)
            + self._described(item.name, item.category, item.arguments)
        )

    def _add_slice(self, item: Slice) -> None:
        track, began_ns, ended_ns, name, category, arguments, flows, last_flows, measures = item
        row = self._rows.get(track)
        if row is None or row.chunk != self._sequence_number:
            row = self._use_row(track)
        key = name, category, tuple(arguments)
        description = self._descriptions.get(key)
        if description is None or description.chunk != self._sequence_number:
            description = self._use_description(key)
        begin = row.begin + description.content
        for measure, value in measures:
            begin += _annotation(self._measure(measure) + varint(value))
        self._packets.slice(begin, row.end, began_ns, ended_ns, flows, last_flows)

    # -- what is encoded once, and had again by each chunk that uses it --------------------------------------------

    def _use_row(self, track: Track) -> _Row:
        number = self._track(track)
        row = self._rows.get(track)
        if row is None:
            row = self._rows[uncollected(track)] = uncollected(_Row(number))
        row.chunk = self._sequence_number
        return row

    def _use_description(self, key: tuple[str, str, _Arguments]) -> _Description:
        description = self._descriptions.get(key)
        if description is None:
            name, category, arguments = key
            texts = [(self._categories, category), (self._names, name)]
            texts += [(self._keys, argument) for argument, _ in arguments]
            texts += [(self._values, value) for _, value in arguments if isinstance(value, str)]
            description = uncollected(_Description(self._described(*key), uncollected(tuple(texts))))
            self._descriptions[uncollected(key)] = description
        for table, text in description.texts:
            table.iid(text)
        description.chunk = self._sequence_number
        return description

    def _place(self, tid: int, stack: Stack) -> bytes:
        key = tid, stack
        place = self._places.get(key)
        if place is not None and place.chunk == self._sequence_number:
            return place.event
        self._tracks.uuid(("thread", tid))
        number = self._stacks.iid(stack)
        if place is None:
            sample = integer(_SAMPLE_PID, self._pid) + integer(_SAMPLE_TID, tid)
            place = _Place(_sample(sample + integer(_CALLSTACK, number) + integer(_CPU_MODE, _USER)))
            self._places[uncollected(key)] = uncollected(place)
        place.chunk = self._sequence_number
        return place.event

    def _described(self, name: str, category: str, arguments: Sequence[tuple[str, Value]]) -> bytes:
        event = integer(_CATEGORY_IID, self._categories.iid(category)) + integer(_NAME_IID, self._names.iid(name))
        return event + b"".join(self._annotation(*argument) for argument in arguments)

    def _measure(self, key: str) -> bytes:
        number = self._keys.iid(key)
        known = self._measures.get(key)
        if known is None:
            known = self._measures[key] = integer(_ANNOTATION_NAME_IID, number) + _INT_TAG
        return known

    def _annotation(self, key: str, value: Value) -> bytes:
        annotation = integer(_ANNOTATION_NAME_IID, self._keys.iid(key))
        if isinstance(value, str):
            annotation += integer(_VALUE_IID, self._values.iid(value))
        else:
            annotation += _INT_TAG + varint(value)
        return _annotation(annotation)

    def _track(self, track: Track) -> bytes:
        return integer(_TRACK_UUID, self._tracks.uuid(track))


def _clock(clock: int, time_ns: int) -> bytes:
    return message(_CLOCKS, integer(_CLOCK_ID, clock) + integer(_CLOCK_TIME, time_ns))


def _clocks_now() -> tuple[int, int]:
    """How far the real time, and that since the machine was started, are ahead of the monotonic clock."""
    # Elsewhere than on Linux the latter is not to be had: the monotonic one is taken for it.
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return _ahead_ns(time.CLOCK_REALTIME), _ahead_ns(boot) if boot is not None else 0


def _ahead_ns(clock: int) -> int:
    """Two clocks are never read at once, and this thread may lose the GIL in between: the quickest reading counts."""
    best, took = 0, sys.maxsize
    for _ in range(5):
        before, there, after = time.monotonic_ns(), time.clock_gettime_ns(clock), time.monotonic_ns()
        if after - before < took:
            best, took = there - (before + after) // 2, after - before
    return best
