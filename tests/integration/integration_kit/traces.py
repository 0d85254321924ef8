"""Reads a trace with Perfetto's own trace_processor, which knows nothing of how it was written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trace_kit.trace_processor import PROBLEMS, Row, TraceProcessor

_SLICES = """
    select slice.id, slice.name, category, slice.ts as began, dur, depth, track.name as track, tid, pid,
        slice.arg_set_id as arguments
    from slice join track on track.id = track_id
    left join thread_track on thread_track.id = track_id left join thread using (utid)
    left join process_track on process_track.id = track_id
    left join process on process.upid = coalesce(thread.upid, process_track.upid)
    order by slice.ts
"""
_ARGUMENTS = """
    select arg_set_id as id, substr(key, 7) as key, int_value as number, string_value as text
    from args where key glob 'debug.*'
"""
_FLOWS = "select trace_id as flow, slice_out as begins, slice_in as ends from flow"
_COUNTERS = "select name, ts, value from counter join counter_track on counter_track.id = track_id order by ts"
_SAMPLES = """
    with recursive frames(sample, depth, parent, frame) as (
        select perf_sample.id, 0, parent_id, frame_id
        from perf_sample join stack_profile_callsite as site on site.id = callsite_id
        union all
        select sample, frames.depth + 1, parent_id, frame_id
        from frames join stack_profile_callsite as site on site.id = frames.parent
    )
    select sample, frames.depth, tid, ts, symbol.name, source_file as file, line_number as line
    from frames join perf_sample on perf_sample.id = sample join thread using (utid)
    join stack_profile_frame as place on place.id = frame
    join stack_profile_symbol as symbol using (symbol_set_id)
    order by sample, frames.depth
"""
_THREADS = "select tid, thread.name, pid from thread join process using (upid) where tid > 0"
_PROCESSES = "select pid, name from process where pid > 0"

CLOCKS_NS = 5_000
"""How far trace and test may be apart: a trace counts in whole microseconds, and both read two clocks one by one."""


def boot_offset_ns() -> int:
    """How far trace_processor's clock, that since the machine was started, is ahead of the monotonic one."""
    readings = [(time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.monotonic_ns()) for _ in "12345"]
    before, boot, after = min(readings, key=lambda reading: reading[2] - reading[0])
    return boot - (before + after) // 2


@dataclass(frozen=True, slots=True)
class ReadSlice:
    """Something that lasted. Times in nanoseconds of the monotonic clock."""

    id: int
    name: str
    category: str
    began: int
    ended: int | None
    """None for what goes on."""
    depth: int
    track: str | None
    tid: int | None
    """Of the thread in which it is drawn; None for what is drawn in the process."""
    pid: int
    arguments: dict[str, Any]

    @property
    def length(self) -> int:
        assert self.ended is not None, f"{self} goes on"
        return self.ended - self.began

    def contains(self, began: int, ended: int) -> bool:
        """Whether it lasted all that time, as far as clocks can be compared and microseconds tell."""
        return self.began <= began + CLOCKS_NS and (self.ended is None or ended <= self.ended + CLOCKS_NS)


@dataclass(frozen=True, slots=True)
class ReadFrame:
    function: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class ReadSample:
    tid: int
    time: int
    frames: tuple[ReadFrame, ...]
    """The innermost first."""


class ReadTrace:
    """One trace, as far as the tests ask for it."""

    def __init__(self, processor: TraceProcessor, body: bytes) -> None:
        """Any exception when it is none."""
        offset = boot_offset_ns()
        statements = (PROBLEMS, _SLICES, _ARGUMENTS, _FLOWS, _COUNTERS, _SAMPLES, _THREADS, _PROCESSES)
        self.problems, slices, arguments, self._flows, counters, frames, threads, processes = processor.query(
            body, *statements
        )
        values: dict[int, dict[str, Any]] = {}
        for row in arguments:
            values.setdefault(row["id"], {})[row["key"]] = row["number"] if row["text"] is None else row["text"]
        self.slices = [_slice(row, values.get(row["arguments"], {}), offset) for row in slices]
        self.counters: dict[str, list[tuple[int, float]]] = {}
        for row in counters:
            self.counters.setdefault(row["name"], []).append((row["ts"] - offset, row["value"]))
        self.samples = list(_samples(frames, offset))
        self.thread_names: dict[int, str] = {row["tid"]: row["name"] for row in threads}
        self.processes: dict[int, str] = {row["pid"]: row["name"] for row in processes}

    def of(self, category: str, name: str | None = None) -> list[ReadSlice]:
        """The slices of a category, in the order of their beginnings."""
        return [one for one in self.slices if one.category == category and name in (None, one.name)]

    @property
    def about(self) -> dict[str, Any]:
        """What it says of itself; it has to do so once."""
        (about,) = self.of("about")
        return about.arguments

    @property
    def capture_id(self) -> str:
        return str(self.about["capture"]).partition(" ")[0]

    @property
    def trigger(self) -> str:
        """Why it was taken."""
        return str(self.about["capture"]).split(", ")[1]

    def together(self, one: ReadSlice) -> list[ReadSlice]:
        """The slices that arrows connect with this one, whichever way they point; not beyond what it is part of."""
        flows = self._flows_of.get(one.id, set())
        return [other for other in self.slices if other is not one and flows & self._flows_of.get(other.id, set())]

    @cached_property
    def _flows_of(self) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for row in self._flows:
            for end in (row["begins"], row["ends"]):
                found.setdefault(end, set()).add(row["flow"])
        return found


def _slice(row: Row, arguments: dict[str, Any], offset: int) -> ReadSlice:
    began = row["began"] - offset
    return ReadSlice(
        id=row["id"],
        name=row["name"],
        category=row["category"],
        began=began,
        ended=began + row["dur"] if row["dur"] >= 0 else None,
        depth=row["depth"],
        track=row["track"],
        tid=row["tid"],
        pid=row["pid"],
        arguments=arguments,
    )


def _samples(rows: Sequence[Row], offset: int) -> list[ReadSample]:
    frames: dict[int, list[ReadFrame]] = {}
    for row in rows:
        frames.setdefault(row["sample"], []).append(ReadFrame(row["name"], row["file"], row["line"]))
    first = {row["sample"]: row for row in rows if row["depth"] == 0}
    return [ReadSample(row["tid"], row["ts"] - offset, tuple(frames[number])) for number, row in sorted(first.items())]
