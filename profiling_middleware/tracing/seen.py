"""What the sampling engine and the instruments see while a trace is taken: stacks, and threads that wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from profiling_middleware.model import Contention, Label, Reason, Sample, Stack, Thread
from profiling_middleware.threads import OWN_THREADS

_MOST = 20_000
_SLOTS_A_SAMPLE = 6
LOCK_WAIT_NS = 1_000_000
"""Waits for locks of this length and longer are told."""


SampleFields = tuple[int, Thread, Stack, int, int, tuple[Label, ...], int, Reason, bool]
"""Those of a Sample, in their order."""


class _Fields:
    """Rows, the fields of one behind those of the other: objects that stay for some seconds wake the collector."""

    _row: tuple[str, ...]
    """The names of its fields."""

    def __init__(self, rows: Iterable[tuple[Any, ...]] = ()) -> None:
        self._slots: list[Any] = []
        self.extend(rows)

    def __len__(self) -> int:
        return len(self._slots) // len(self._row)

    def extend(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Adds these."""
        self._slots.extend(chain.from_iterable(rows))

    def column(self, field: str) -> list[Any]:
        """One field of all of them."""
        return self._slots[self._row.index(field) :: len(self._row)]

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        return zip(*[iter(self._slots)] * len(self._row), strict=True)


class SeenSamples(_Fields):
    """Samples."""

    _row = Sample._fields

    def __iter__(self) -> Iterator[SampleFields]:
        return self._rows()


class SeenWaits(_Fields):
    """Waits that are told by themselves."""

    _row = Contention._fields

    def __iter__(self) -> Iterator[Contention]:
        return map(Contention._make, self._rows())


class Seen(NamedTuple):
    """What has been seen since the last time."""

    samples: SeenSamples
    lock_waits: SeenWaits
    """Of threads."""
    task_lock_waits: SeenWaits
    """Of asyncio's tasks, for its locks."""

    @property
    def size(self) -> int:
        """How many there are of all of them."""
        return sum(map(len, self))

    @property
    def weight(self) -> int:
        """How much memory they take, in slots of some 40 bytes."""
        return _SLOTS_A_SAMPLE * self.size


class SeenThreads:
    """A listener of the engine and of the instruments. All calls come from the timer's thread."""

    # Waits one by one, and not their sums.
    hears_work, hears_waits = True, False
    # Who sleeps through a stall of 100 ms is mostly looked at; most of what a look costs is waking up.
    wait_looks = 10.0
    wait_moments_ns = LOCK_WAIT_NS

    def __init__(self) -> None:
        self._seen = Seen(SeenSamples(), SeenWaits(), SeenWaits())
        self.dropped = 0

    @property
    def weight(self) -> int:
        """See `Seen`."""
        return self._seen.weight

    def receive(self, samples: Sequence[Sample]) -> None:
        self._keep(self._seen.samples, samples)

    def receive_contentions(self, contentions: Sequence[Contention]) -> None:
        """Only those that are told by themselves, with their moment: of asyncio's locks."""
        one_by_one = (one for one in contentions if one.time_ns and one.waiter is None)
        self._keep(self._seen.task_lock_waits, [wait for wait in one_by_one if wait.delay_ns >= LOCK_WAIT_NS])

    def receive_lock_waits(self, waits: Sequence[Contention]) -> None:
        self._keep(self._seen.lock_waits, [wait for wait in waits if not wait.thread.name.startswith(OWN_THREADS)])

    def take(self) -> Seen:
        """What there is, and begins anew."""
        seen, self._seen = self._seen, Seen(SeenSamples(), SeenWaits(), SeenWaits())
        return seen

    def _keep(self, kept: _Fields, new: Sequence[Any]) -> None:
        room = _MOST - len(kept)
        kept.extend(new[:room])
        self.dropped += max(0, len(new) - room)
