"""What captures that add up samples have in common: a bounded sum per thread and stack, and the profile's comments."""

from __future__ import annotations

import time
from collections.abc import Sequence

from profiling_middleware.captures.comments import cost, identity
from profiling_middleware.model import (
    CaptureInfo,
    Contention,
    Frame,
    Label,
    Profile,
    ProfileSample,
    Sample,
    Stack,
    Thread,
    ValueType,
)
from profiling_middleware.sampling.engine import Engine, EngineReport
from profiling_middleware.uncollected import make_untracker

_MAX_STACKS = 20_000
_OTHER_STACKS = Stack((Frame("<other stacks>", "", 0, 0),))

_OTHER_THREADS = Thread("other threads", 0)

_Key = tuple[Thread, Stack, tuple[Label, ...]]


class StackSums:
    """Adds up one of a sample's times per thread and stack; what exceeds the bound is summed in one visible frame."""

    def __init__(self, field: int, period_ns: int | None, *, wait_looks: float = 0.0, limit: int = _MAX_STACKS) -> None:
        """`field` is the sample's field to add up. With `period_ns` a wait counts once a period, else once a sample.

        `wait_looks` is how many looks a second it takes at threads that do not run.
        """
        self._field = field
        self.wait_looks = wait_looks
        self._period_ns = period_ns
        self._limit = limit
        self._sums: dict[_Key, list[int]] = {}
        self._untrack = make_untracker()
        self.overflowed = 0

    hears_work, hears_waits, wait_moments_ns = True, False, 0

    def receive_contentions(self, contentions: Sequence[Contention]) -> None:
        """It hears of none: waits for locks are in the samples, too."""

    def receive_lock_waits(self, waits: Sequence[Contention]) -> None:
        """Likewise."""

    def receive(self, samples: Sequence[Sample]) -> None:
        sums, field, period = self._sums, self._field, self._period_ns
        for sample in samples:
            value = sample[field]
            if not isinstance(value, int) or value <= 0:
                continue
            key = (sample.thread, sample.stack, sample.labels)
            entry = sums.get(key)
            if entry is None:
                entry = self._new_entry(key)
            entry[0] += 1 if period is None else max(1, round(value / period))
            entry[1] += value

    def samples(self) -> list[ProfileSample]:
        """One sample a thread, stack and labels: (count, nanoseconds)."""
        labels: dict[Thread, tuple[Label, ...]] = {_OTHER_THREADS: ()}
        result = []
        for (thread, stack, work), (count, value) in self._sums.items():
            if thread not in labels:
                labels[thread] = (Label("thread", thread.name), Label("thread_id", thread.native_id, "id"))
            result.append(ProfileSample(stack, labels[thread] + work, (count, value)))
        return result

    def _new_entry(self, key: _Key) -> list[int]:
        if len(self._sums) >= self._limit:
            self.overflowed += 1
            # Of all threads and labels together: a service that starts a thread a request has no end of them.
            key = (_OTHER_THREADS, _OTHER_STACKS, ())
        return self._sums.setdefault(self._untrack(key), self._untrack([0, 0]))


class SampledCapture:
    """A capture that listens to the sampling engine from `begin` to `end`."""

    def __init__(
        self, engine: Engine, sums: StackSums, sample_types: tuple[ValueType, ...], period_type: ValueType
    ) -> None:
        self._engine = engine
        self._sums = sums
        self._sample_types = sample_types
        self._period_type = period_type
        self._began = EngineReport()
        self._began_ns = 0

    def begin(self) -> None:
        """Starts to listen."""
        self._engine.attach(self._sums)
        self._began = self._engine.report()
        self._began_ns = time.monotonic_ns()

    def cancel(self) -> None:
        """Stops listening; nothing is kept."""
        self._engine.detach(self._sums)

    def end(self, info: CaptureInfo) -> Profile:
        """Stops listening and returns what was heard."""
        self._engine.detach(self._sums)
        duration_ns = time.monotonic_ns() - self._began_ns
        report = self._engine.report().since(self._began)
        return Profile(
            info=info,
            sample_types=self._sample_types,
            period_type=self._period_type,
            period=1_000_000_000 // self._engine.rate,
            duration_ns=duration_ns,
            samples=self._sums.samples(),
            comments=(
                *identity(info),
                *cost(self._engine, report, duration_ns),
                *_losses(report, self._sums),
                *(f"limit: {limit}" for limit in self._engine.limits),
            ),
        )


def _losses(report: EngineReport, sums: StackSums) -> list[str]:
    lines = []
    if report.not_placed_ns:
        lines.append(f"CPU not placed: {report.not_placed_ns / 1e6:.1f} ms, under the frames in angle brackets")
    if report.lost_stacks:
        lines.append(f"lost: {report.lost_stacks} stacks changed while they were read")
    if report.table_clears:
        lines.append(f"the table of known stacks was full {report.table_clears} times and began anew")
    if sums.overflowed:
        lines.append(f"dropped: the stacks of {sums.overflowed} samples, summed under <other stacks>")
    return lines
