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
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from profiling_middleware.encoders.interning import (
    ANNOTATION_NAMES,
    ANNOTATION_VALUES,
    CATEGORIES,
    EVENT_NAMES,
    MOST_ENTRIES,
    Stacks,
    Texts,
)
from profiling_middleware.encoders.protobuf import integer, message, tagged, varint
from profiling_middleware.encoders.tracks import Track, Tracks
from profiling_middleware.model import Stack

# Trace, TracePacket
_PACKET, _CLOCK_SNAPSHOT, _TIMESTAMP, _SEQUENCE_ID, _TRACK_EVENT, _INTERNED_DATA = 1, 6, 8, 10, 11, 12
_SEQUENCE_FLAGS, _TIMESTAMP_CLOCK, _PACKET_DEFAULTS, _TRACK_DESCRIPTOR, _MODULE_SYMBOLS, _PERF_SAMPLE = (
    13,
    58,
    59,
    60,
    61,
    66,
)
_STATE_CLEARED = 1
# ClockSnapshot, Clock
_CLOCKS, _CLOCK_ID, _CLOCK_TIME, _IS_INCREMENTAL, _MULTIPLIER_NS = 1, 1, 2, 3, 4
_REALTIME, _MONOTONIC, _BOOTTIME, _OURS = 1, 3, 6, 64
_MICROSECOND = 1000
# TrackEvent
_CATEGORY_IID, _ANNOTATION, _TYPE, _NAME_IID, _TRACK_UUID, _COUNTER, _DOUBLE_COUNTER = 3, 4, 9, 10, 11, 30, 44
_FLOW, _LAST_FLOW = 47, 48
_BEGIN, _END, _INSTANT, _COUNTS = 1, 2, 3, 4
# DebugAnnotation
_ANNOTATION_NAME_IID, _INT, _VALUE_IID = 1, 4, 17
# PerfSample
_SAMPLE_PID, _SAMPLE_TID, _CALLSTACK, _CPU_MODE = 2, 3, 4, 5
_USER = 2

_FIXED64 = 1
_packet, _event, _annotation = tagged(_PACKET), tagged(_TRACK_EVENT), tagged(_ANNOTATION)
_TIMESTAMP_TAG, _INT_TAG = varint(_TIMESTAMP << 3), varint(_INT << 3)
_BEGIN_EVENT, _END_EVENT = integer(_TYPE, _BEGIN), integer(_TYPE, _END)
_FLOW_TAG, _LAST_FLOW_TAG = varint(_FLOW << 3 | _FIXED64), varint(_LAST_FLOW << 3 | _FIXED64)
_FIXED64_FIELD = struct.Struct("<2sQ").pack
# So many pieces of some microseconds each, and whoever wants to may pause.
_PIECES = 8
_IN_NANOSECONDS = integer(_TIMESTAMP_CLOCK, _MONOTONIC)
# Two clocks are not read at the same time. A machine that was asleep is another matter.
_CLOCK_JITTER_NS = 1_000_000
Value = int | str


class Slice(NamedTuple):
    """Something that lasted."""

    track: Track
    began_ns: int
    ended_ns: int
    """0 for what goes on."""
    name: str
    category: str
    arguments: Sequence[tuple[str, Value]] = ()
    flows: Sequence[int] = ()
    """Numbers below 2^32 that slices have in common which belong together: arrows lead from each to the next."""
    last_flows: Sequence[int] = ()
    """Of arrows that end here."""
    measures: Sequence[tuple[str, int]] = ()
    """Further arguments: those that are different each time."""


class Instant(NamedTuple):
    """Something that happened at one moment."""

    track: Track
    time_ns: int
    name: str
    category: str
    arguments: Sequence[tuple[str, Value]] = ()


class Count(NamedTuple):
    """What a counter said."""

    track: Track
    time_ns: int
    value: float


class StackSample(NamedTuple):
    """Where a thread worked."""

    tid: int
    time_ns: int
    stack: Stack


TraceItem = Slice | Instant | Count | StackSample

# At the same microsecond: first what ends, then what begins, the longer before what it contains. Where microseconds do
# not tell them apart, what began first and ended last.
_ENDS, _HAPPENS, _BEGINS = 0, 1, 2
_NEVER = 1 << 62
_Timed = tuple[int, int, tuple[int, ...], bytes]


_Happening = tuple[Track, str, str, tuple[tuple[str, Value], ...]]
"""A slice's track, name, category and arguments: all that is the same the next time."""


class _Begin:
    """What a TrackEvent begins with, encoded already, and the texts that it refers to."""

    __slots__ = ("content", "sequence_number", "texts")

    def __init__(self, content: bytes, texts: tuple[tuple[Texts, str], ...], sequence_number: int) -> None:
        self.content, self.texts = content, texts
        self.sequence_number = sequence_number
        """Of the last chunk that has these texts."""


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
        # Most of what happens has happened before.
        self._begins: dict[_Happening, _Begin] = {}
        self._ends: dict[Track, bytes] = {}
        self._measures: dict[str, bytes] = {}
        self._last_base = 0
        self._boot_offset_ns = _clocks_now()[1]
        self._flow_base = secrets.randbits(31) << 32

    def name_thread(self, tid: int, name: str) -> None:
        """How a thread is called in chunks from now on."""
        self._tracks.name_thread(tid, name)

    def chunk(self, items: Iterable[TraceItem], give_way: Callable[[], None]) -> bytes:
        """The chunk of these items; calls `give_way` every some microseconds, which may pause."""
        # On a sequence of its own: two windows that follow each other share a chunk, and when they are put one behind
        # the other a reader refuses what comes later on a sequence whose clock goes back.
        self._sequence_number += 1
        self._sequence = integer(_SEQUENCE_ID, self._sequence_number)
        timed: list[_Timed] = []
        for number, item in enumerate(items):
            if isinstance(item, Slice):
                self._time_slice(item, timed)
            else:
                timed.append((item.time_ns // _MICROSECOND, _HAPPENS, (), self._moment(item)))
            if not number % _PIECES:
                give_way()
        timed.sort()
        base = self._base(timed)
        parts = [self._head(base)]
        parts += [self._packet(message(_TRACK_DESCRIPTOR, one)) for one in self._tracks.take()]
        stacks, symbols = self._stacks.take()
        texts = b"".join(texts.take() for texts in (self._categories, self._names, self._keys, self._values))
        parts.append(self._packet(message(_INTERNED_DATA, texts + stacks)))
        self._append_packets(timed, base, parts, give_way)
        # After the stacks that they are of.
        parts += [self._packet(_later(0) + message(_MODULE_SYMBOLS, one)) for one in symbols]
        self._make_room()
        return b"".join(parts)

    def _append_packets(
        self, timed: Sequence[_Timed], base: int, parts: list[bytes], give_way: Callable[[], None]
    ) -> None:
        at, sequence = base, self._sequence
        for number, (when, _, _, body) in enumerate(timed):
            if when < base:
                stamp = integer(_TIMESTAMP, when * _MICROSECOND) + _IN_NANOSECONDS
            else:
                stamp, at = _later(when - at), when
            parts.append(_packet(stamp + body + sequence))
            if not number % _PIECES:
                give_way()

    def _base(self, timed: Sequence[_Timed]) -> int:
        """The moment, in microseconds, from which a chunk counts: that of its first packet.

        But later than any before, as readers refuse clocks that go back. What began earlier says when by itself.
        """
        first = timed[0][0] if timed else 0
        self._last_base = max(first, self._last_base + 1)
        return self._last_base

    def _make_room(self) -> None:
        tables: tuple[Texts | Stacks | dict[_Happening, _Begin], ...]
        tables = self._names, self._values, self._stacks, self._begins
        if any(len(table) > MOST_ENTRIES for table in tables):
            for table in tables:
                table.clear()
            self._ends.clear()

    # -- packets -------------------------------------------------------------------------------------------------

    def _packet(self, content: bytes) -> bytes:
        return _packet(content + self._sequence)

    def _head(self, first_us: int) -> bytes:
        """Forgets what was before on this sequence, and says what time it is on all clocks."""
        defaults = message(_PACKET_DEFAULTS, integer(_TIMESTAMP_CLOCK, _OURS))
        first_ns = first_us * _MICROSECOND
        clocks_now = _clocks_now()
        if abs(clocks_now[1] - self._boot_offset_ns) > _CLOCK_JITTER_NS:
            self._boot_offset_ns = clocks_now[1]
        ours = integer(_CLOCK_ID, _OURS) + integer(_CLOCK_TIME, first_us)
        ours += integer(_IS_INCREMENTAL, 1) + integer(_MULTIPLIER_NS, _MICROSECOND)
        clocks = message(_CLOCKS, ours) + _clock(_MONOTONIC, first_ns)
        clocks += _clock(_BOOTTIME, first_ns + self._boot_offset_ns) + _clock(_REALTIME, first_ns + clocks_now[0])
        return self._packet(integer(_SEQUENCE_FLAGS, _STATE_CLEARED) + defaults) + self._packet(
            message(_CLOCK_SNAPSHOT, clocks)
        )

    def _moment(self, item: Instant | Count | StackSample) -> bytes:
        if isinstance(item, StackSample):
            sample = integer(_SAMPLE_PID, self._pid) + integer(_SAMPLE_TID, item.tid)
            sample += integer(_CALLSTACK, self._stacks.iid(item.stack)) + integer(_CPU_MODE, _USER)
            self._tracks.uuid(("thread", item.tid))
            return message(_PERF_SAMPLE, sample)
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

    def _time_slice(self, item: Slice, timed: list[_Timed]) -> None:
        track, began_ns, ended_ns, name, category, arguments, flows, last_flows, measures = item
        key = track, name, category, tuple(arguments)
        begin = self._begins.get(key)
        if begin is None:
            begin = self._begins[key] = self._new_begin(key)
        elif begin.sequence_number != self._sequence_number:
            self._have_again(begin, track)
        event = begin.content
        for measure, value in measures:
            event += _annotation(self._measure(measure) + varint(value))
        for flow in flows:
            event += _FIXED64_FIELD(_FLOW_TAG, self._flow_base | flow)
        for flow in last_flows:
            event += _FIXED64_FIELD(_LAST_FLOW_TAG, self._flow_base | flow)
        began = began_ns // _MICROSECOND
        if not ended_ns:
            timed.append((began, _BEGINS, (-_NEVER, began_ns, 0), _event(event)))
            return
        # What began and ended within a microsecond would end before it begins.
        ended = max(began + 1, ended_ns // _MICROSECOND)
        timed.append((began, _BEGINS, (-ended, began_ns, -ended_ns), _event(event)))
        end = self._ends.get(track)
        if end is None:
            end = self._ends[track] = _event(_END_EVENT + self._track(track))
        timed.append((ended, _ENDS, (-began,), end))

    def _new_begin(self, key: _Happening) -> _Begin:
        track, name, category, arguments = key
        texts = [(self._categories, category), (self._names, name)]
        for argument, value in arguments:
            texts.append((self._keys, argument))
            if isinstance(value, str):
                texts.append((self._values, value))
        content = _BEGIN_EVENT + self._track(track) + self._described(name, category, arguments)
        return _Begin(content, tuple(texts), self._sequence_number)

    def _have_again(self, begin: _Begin, track: Track) -> None:
        begin.sequence_number = self._sequence_number
        self._tracks.uuid(track)
        for table, text in begin.texts:
            table.iid(text)

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


def _later(microseconds: int) -> bytes:
    return _TIMESTAMP_TAG + varint(microseconds)  # also 0: without it a packet has no time


def _clocks_now() -> tuple[int, int]:
    """How far the real time, and that since the machine was started, are ahead of the monotonic clock."""
    # Elsewhere than on Linux the latter is not to be had: the monotonic one is taken for it.
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return _ahead_ns(time.CLOCK_REALTIME), _ahead_ns(boot) if boot is not None else 0


def _ahead_ns(clock: int) -> int:
    """Two clocks are never read at once, and this thread may lose the GIL in between: the quickest reading counts."""
    best, took = 0, _NEVER
    for _ in range(5):
        before, there, after = time.monotonic_ns(), time.clock_gettime_ns(clock), time.monotonic_ns()
        if after - before < took:
            best, took = there - (before + after) // 2, after - before
    return best
