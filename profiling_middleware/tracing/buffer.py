"""Events on their way from where they happen, on any thread, to the tracer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from profiling_middleware.trace_events import EVENT_TYPES, TraceEvent

# An integer takes 32 bytes and its slot 8: 4 MB at the most.
MOST_SLOTS = 100_000
(REQUEST, STEP, TASK, AWAIT, WORK, COLLECTION, COUNTER) = range(len(EVENT_TYPES))
"""What an event begins with; its fields follow."""

_SLOTS = tuple(1 + len(event_type._fields) for event_type in EVENT_TYPES)


class TraceBuffer:
    """A bounded number of events; what finds no room is counted.

    Their fields lie one behind the other in one list: a tuple for each would wake the garbage collector.
    """

    def __init__(self, limit: int = MOST_SLOTS) -> None:
        self._limit = limit
        self._slots: list[object] = []
        self.dropped = 0
        """Since the process started."""

    def __len__(self) -> int:
        """In slots."""
        return len(self._slots)

    def add(self, *event: object) -> None:
        """Keeps the kind and the fields of an event, in their order. From any thread."""
        if len(self._slots) < self._limit:
            self._slots.extend(event)  # one step of C: no other thread comes in between
        else:
            self.dropped += 1

    def fetch(self) -> list[object]:
        """Takes what there is; `events_of` makes events of it."""
        count = len(self._slots)
        slots = self._slots[:count]
        del self._slots[:count]
        return slots


Lasting = tuple[int, int, int]
"""What lasts, such as a request: its kind, its row, and when it began."""

_BEGAN = {
    kind: 1 + EVENT_TYPES[kind]._fields.index("began_ns")
    for kind, event_type in enumerate(EVENT_TYPES)
    if event_type._fields[0] == "row"
}


def ended_in(slots: list[object]) -> set[Lasting]:
    """What is told by these as having ended."""
    ended: set[Any] = set()
    place = 0
    while place < len(slots):
        kind: Any = slots[place]
        if kind in _BEGAN:
            ended.add((kind, slots[place + 1], slots[place + _BEGAN[kind]]))
        place += _SLOTS[kind]
    return ended


def lasting(event: TraceEvent) -> Lasting | None:
    """What goes on, likewise; None for what happens in no row."""
    kind = EVENT_TYPES.index(type(event))
    return (kind, event[0], event[_BEGAN[kind] - 1]) if kind in _BEGAN else None  # type: ignore[return-value]


def events_of(slots: list[object]) -> Iterator[TraceEvent]:
    """The events that were added, one by one: for each that stays the garbage collector would run the sooner."""
    place = 0
    while place < len(slots):
        kind = slots[place]
        assert isinstance(kind, int)
        end = place + _SLOTS[kind]
        yield EVENT_TYPES[kind]._make(slots[place + 1 : end])
        place = end
