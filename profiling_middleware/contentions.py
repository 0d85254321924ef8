"""Contentions on their way from where they are measured, on any thread, to whoever sums them."""

from __future__ import annotations

import random
from collections import deque

from profiling_middleware.labels import labels_of
from profiling_middleware.model import Contention

_MOST_EVENTS = 50_000


class ContentionEvents:
    """Which ones are recorded, and those that nobody has fetched yet: a bounded number, the rest is counted."""

    def __init__(self, limit: int = _MOST_EVENTS) -> None:
        self._limit = limit
        self._events: deque[tuple[Contention, object]] = deque()
        self._random = random.Random()
        self._block_rate_ns, self._mutex_fraction = 1, 1
        self.dropped = 0
        """How many found no room since the process started."""

    def set_rates(self, block_rate_ns: int, mutex_fraction: int) -> None:
        """As `sampling.engine.Engine.set_wait_rates`."""
        self._block_rate_ns, self._mutex_fraction = block_rate_ns, mutex_fraction

    def choose_wait(self, waited_ns: int) -> tuple[float, float] | None:
        """What a wait counts for, contentions and nanoseconds; None for one that is not recorded."""
        rate = self._block_rate_ns
        if rate == 0 or (waited_ns < rate and self._random.random() * rate >= waited_ns):
            return None
        return (rate / waited_ns, float(rate)) if waited_ns < rate else (1.0, float(waited_ns))

    def choose_release(self) -> float:
        """How many releases one counts for; 0 for one that is not recorded."""
        fraction = self._mutex_fraction
        return 0.0 if fraction == 0 or self._random.random() * fraction >= 1 else float(fraction)

    def note(self, contention: Contention, work: object) -> None:
        """Keeps it for `fetch`, with the value of the variable that says whom it was done for. From any thread."""
        if len(self._events) < self._limit:
            self._events.append((contention, work))
        else:
            self.dropped += 1

    def fetch(self) -> list[Contention]:
        """What was noted since the last time, with its labels."""
        # Others go on adding: what comes from now on is for the next time.
        events = [self._events.popleft() for _ in range(len(self._events))]
        return [event._replace(labels=event.labels + labels_of(work)) for event, work in events]

    def clear(self) -> None:
        """Forgets what was not fetched."""
        self._events.clear()
