"""Tracks of a Perfetto trace: the rows it is drawn in.

Source of the field numbers:
https://github.com/google/perfetto/blob/main/protos/perfetto/trace/track_event/track_descriptor.proto
"""

from __future__ import annotations

import secrets

from profiling_middleware.encoders.protobuf import integer, message
from profiling_middleware.trace_events import COUNTERS

# TrackDescriptor
_UUID, _NAME, _PROCESS, _THREAD, _PARENT, _COUNTER, _CHILD_ORDERING, _RANK = 1, 2, 3, 4, 5, 8, 11, 12
_EXPLICIT = 3
# ProcessDescriptor, ThreadDescriptor
_PID, _PROCESS_NAME, _TID, _THREAD_NAME = 1, 6, 2, 5
# CounterDescriptor
_UNIT, _UNIT_NAME = 3, 6
_UNITS = {"ns": 1, "count": 2, "bytes": 3}

_MOST_NAMES = 10_000
_GROUPS = {"request": "requests", "task": "tasks", "lock": "waits for asyncio locks"}

Track = tuple[str | int, ...]
"""("process",), ("thread" | "loop" | "state", tid), ("request" | "task" | "lock", row), ("counter", its name)."""

_RANKS = {"request": 1, "task": 2, "lock": 3, "counter": 4}
_KINDS = {"process": 0, "thread": 1, "loop": 2, "state": 3, "request": 4, "task": 5, "lock": 6, "counter": 7}
_KIND_BITS, _WHICH_BITS = 3, 31
_COUNTER_NUMBERS = {name: number for number, name in enumerate(COUNTERS)}


class Tracks:
    """Numbers of tracks, and what each chunk has to say of those it uses."""

    def __init__(self, pid: int, process: str) -> None:
        self._pid, self._process = pid, process
        self._threads: dict[int, str] = {}
        self._used: dict[Track, bytes] = {}
        self._descriptors: dict[Track, bytes] = {}
        # Random, because the numbers of another process must be others. Those of a track never change: a reader takes
        # a process or a thread with a new number for one that has the old one's id by chance.
        self._base = (secrets.randbits(29) | 1) << _KIND_BITS + _WHICH_BITS

    def name_thread(self, tid: int, name: str) -> None:
        """How a thread is called from now on."""
        if self._threads.get(tid) != name:
            self._threads[tid] = name
            self._descriptors.pop(("thread", tid), None)

    def uuid(self, track: Track) -> int:
        """Its number, from now on part of this chunk."""
        uuid = self._number(track)
        if track not in self._used:
            parent = _parent(track)
            if parent is not None:
                self.uuid(parent)  # comes before it in the chunk
            known = self._descriptors.get(track)
            if known is None:
                known = self._descriptors[track] = self._descriptor(track, uuid)
            self._used[track] = known
        return uuid

    def _number(self, track: Track) -> int:
        kind, which = track[0], track[-1]
        number = which if isinstance(which, int) else _COUNTER_NUMBERS.get(which, 0)
        return self._base | number << _KIND_BITS | _KINDS[str(kind)]

    def take(self) -> list[bytes]:
        """The TrackDescriptors of this chunk, parents first; the next one begins."""
        self.uuid(("process",))
        descriptors = list(self._used.values())
        self._used.clear()
        if len(self._threads) + len(self._descriptors) > _MOST_NAMES:
            self._threads.clear()
            self._descriptors.clear()
        return descriptors

    def _descriptor(self, track: Track, uuid: int) -> bytes:
        kind, which = track[0], track[-1]
        descriptor = integer(_UUID, uuid)
        if kind == "process":
            process = integer(_PID, self._pid) + message(_PROCESS_NAME, _text(self._process))
            return descriptor + message(_PROCESS, process) + integer(_CHILD_ORDERING, _EXPLICIT)
        if kind == "thread":
            assert isinstance(which, int)
            thread = integer(_PID, self._pid) + integer(_TID, which)
            name = self._threads.get(which)
            if name:
                thread += message(_THREAD_NAME, _text(name))
            return descriptor + message(_THREAD, thread)
        parent = _parent(track)
        assert parent is not None
        inside = integer(_PARENT, self._number(parent))
        if kind in ("loop", "state"):
            name = "event loop" if kind == "loop" else "runs or waits"
            return descriptor + message(_NAME, _text(name)) + inside
        descriptor += inside + integer(_RANK, _RANKS[str(kind)])
        if kind == "counter":
            counter = COUNTERS[str(which)]
            unit = integer(_UNIT, _UNITS[counter.unit]) if counter.unit in _UNITS else b""
            unit = unit or message(_UNIT_NAME, _text(counter.unit))
            return descriptor + message(_NAME, _text(counter.title)) + message(_COUNTER, unit)
        # Tracks of one name are drawn as one, of several rows.
        return descriptor + message(_NAME, _text(_GROUPS[str(kind)]))


def _parent(track: Track) -> Track | None:
    if track[0] == "process":
        return None
    return ("thread", track[-1]) if track[0] in ("loop", "state") else ("process",)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
