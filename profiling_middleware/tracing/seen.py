"""What the sampling engine and the instruments see while a trace is taken: stacks, and threads that wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from profiling_middleware.model import Contention, Label, Reason, Sample, Stack, Thread
from profiling_middleware.threads import OWN_THREADS

_MOST = 20_000
LOCK_WAIT_NS = 1_000_000
"""Waits for locks of this length and longer are told."""


SampleFields = tuple[int, Thread, Stack, int, int, tuple[Label, ...], int, Reason, bool]
"""Those of a Sample, in their order."""
_FIELDS = len(Sample._fields)


class SeenSamples:
    """Samples, the fields of one behind those of the other: objects that stay for some seconds wake the collector."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._slots: list[Any] = []
        self.extend(samples)

    def __len__(self) -> int:
        return len(self._slots) // _FIELDS

    def __iter__(self) -> Iterator[SampleFields]:
        return zip(*[iter(self._slots)] * _FIELDS, strict=True)

    def extend(self, samples: Iterable[Sample]) -> None:
        """Adds these."""
        self._slots.extend(chain.from_iterable(samples))

    def column(self, field: str) -> list[Any]:
        """One field of all of them."""
        return self._slots[Sample._fields.index(field) :: _FIELDS]


class Seen(NamedTuple):
    """What has been seen since the last time."""

    samples: SeenSamples
    lock_waits: list[Contention]
    """Of threads."""
    task_lock_waits: list[Contention]
    """Of asyncio's tasks, for its locks."""


class SeenThreads:
    """A listener of the engine and of the instruments. All calls come from the timer's thread."""

    # Waits one by one, and not their sums.
    hears_work, hears_waits = True, False
    # Who sleeps through a stall of 100 ms is mostly looked at; most of what a look costs is waking up.
    wait_looks = 10.0
    wait_moments_ns = LOCK_WAIT_NS

    def __init__(self) -> None:
        self._samples = SeenSamples()
        self._waits: list[Contention] = []
        self._task_waits: list[Contention] = []
        self.dropped = 0

    def receive(self, samples: Sequence[Sample]) -> None:
        self._keep(self._samples, samples)

    def receive_contentions(self, contentions: Sequence[Contention]) -> None:
        """Only those that are told by themselves, with their moment: of asyncio's locks."""
        one_by_one = (one for one in contentions if one.time_ns and one.waiter is None)
        self._keep(self._task_waits, [wait for wait in one_by_one if wait.delay_ns >= LOCK_WAIT_NS])

    def receive_lock_waits(self, waits: Sequence[Contention]) -> None:
        self._keep(self._waits, [wait for wait in waits if not wait.thread.name.startswith(OWN_THREADS)])

    def take(self) -> Seen:
        """What there is, and begins anew."""
        seen = Seen(self._samples, self._waits, self._task_waits)
        self._samples, self._waits, self._task_waits = SeenSamples(), [], []
        return seen

    def _keep(self, kept: list[Any] | SeenSamples, new: Sequence[Any]) -> None:
        room = _MOST - len(kept)
        kept.extend(new[:room])
        self.dropped += max(0, len(new) - room)
