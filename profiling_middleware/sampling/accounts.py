"""From what the extension hands out to samples: names, labels, and a place for the CPU time that no sample has."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from profiling_middleware.labels import Labels, Resolve
from profiling_middleware.model import Contention, Frame, Reason, Sample, Stack, Thread
from profiling_middleware.sampling.names import ModuleNames, thread_name
from profiling_middleware.stacks import TRUNCATED
from profiling_middleware.uncollected import make_untracker

_SLACK_NS = 200_000
_MOST_ENDED_PLACES = 1_000
_MOST_GONE = 100
# A request that no router has taken by then is one that none takes.
_LABEL_WAIT_NS = 2_000_000_000
_LATEST = 1 << 63
_RAW_FIELDS, _RAW_CONTENTION_FIELDS = 11, 8
_AT_ONCE = 50

_NO_STACK = -1
_SPECIAL = {
    1: TRUNCATED,
    2: Frame("<thread without Python>", "", 0, 0),
    3: Frame("<another interpreter>", "", 0, 0),
    4: Frame("<not seen yet>", "", 0, 0),
    5: Frame("<running>", "", 0, 0),
}

_RUNNING = _SPECIAL[5]
_REASONS = tuple(Reason)

RawSample = tuple[int, int, int, int, int, int, int, int, int, Resolve | None, object]
"""What is given field by field."""
RawFrame = tuple[str | int, str | None, int, int]
RawContention = tuple[bool, int, int, int, float, float, Resolve | None, object]
"""Likewise."""
RawWait = tuple[int, int, int, int, int, Resolve | None, object]
"""All as `_native.drain()` returns them."""


def stack_of(text: str) -> Stack:
    """A stack of one frame that stands for no function."""
    return Stack((Frame(text, "", 0, 0),))


NATIVE_STACK = Stack((_SPECIAL[2],))
_UNSAMPLED = stack_of("<not sampled>")
_UNREAD = stack_of("<stack changed while it was read>")
_ENDED = stack_of("<thread ended between two looks>")
_ENDED_THREADS = Thread("ended threads", 0)


class _Work:
    """Whom a sample was taken for. Holds a request only until its labels are known."""

    __slots__ = ("_asks", "labels")

    def __init__(self, resolve: Resolve, subject: object) -> None:
        self._asks: tuple[Resolve, object] | None = (resolve, subject)
        self.labels: Labels = ()

    def settle(self, *, final: bool) -> bool:
        """Whether the labels are known, or, the `final` time, will never be."""
        if self._asks is None:
            return True
        resolve, subject = self._asks
        labels: Labels | None
        try:
            labels = resolve(subject)
        except Exception:
            labels = ()  # an application's own routes are asked: what they do ends no capture
        if labels is None and not final:
            return False
        self.labels, self._asks = labels or (), None
        return True


_Place = tuple[Stack, _Work | None]
_NOWHERE = _UNREAD, None, Reason.UNKNOWN


class Accounts:
    """What is known of each thread: its name, where it was seen last, and where it worked last."""

    def __init__(self) -> None:
        self.not_placed_ns = 0
        """CPU time that stands under no function."""
        self._untrack = make_untracker()
        self._modules = ModuleNames()
        self._frames: list[Frame] = []
        self._stacks: list[Stack] = []
        self._threads: dict[int, Thread] = {}
        self._gone: dict[int, Thread] = {}
        """The last that have ended: who waited may tell only now which of them let it go on."""
        self._seen_at: dict[int, tuple[Stack, _Work | None, Reason]] = {}
        self._worked_at: dict[int, _Place] = {}
        self._ended_at: dict[tuple[Stack, Labels], int] = {}
        """How many threads have ended after they worked there last."""
        self._waiting: list[tuple[Sample, _Work]] = []
        """Samples whose labels are not known yet."""

    def clear(self) -> None:
        """Forgets everything: the extension begins anew."""
        self._forget_numbers()
        self._threads.clear()
        self._gone.clear()
        self._seen_at.clear()
        self._worked_at.clear()
        self._ended_at.clear()
        self._waiting.clear()

    @property
    def native_ids(self) -> set[int]:
        """Of the threads that are known now."""
        return {thread.native_id for thread in self._threads.values()}

    def learn_stacks(self, stacks: Iterable[tuple[int, ...]], frames: Iterable[RawFrame], *, begins_anew: bool) -> None:
        """Takes what is new, as `_native.drain()` returns it."""
        if begins_anew:
            self._forget_numbers()
        self._frames.extend(self._frame(*frame) for frame in frames)
        known, untrack = self._frames, self._untrack
        self._stacks.extend(untrack(Stack(untrack(tuple(known[number] for number in numbers)))) for numbers in stacks)

    def learn_threads(self, threads: Iterable[tuple[int, int, int]]) -> None:
        """Takes the key, ident and native id of each new one."""
        for key, ident, native_id in threads:
            name = thread_name(ident, native_id)
            self._threads[key] = _ENDED_THREADS if name is None else Thread(name, native_id)

    def samples(self, fields: Sequence[Any], *, final: bool) -> Iterator[list[Sample]]:
        """Those whose labels are known, also from before; the others wait until they are, or until the `final` time.

        They come some dozens at a time: hundreds of objects that are there at once wake the garbage collector, which
        then takes them for objects that stay.
        """
        settled_ns = _LATEST if final else time.monotonic_ns() - _LABEL_WAIT_NS
        known = self._settled(settled_ns)
        raw: Iterator[RawSample] = zip(*[iter(fields)] * _RAW_FIELDS, strict=True)
        while self._take(raw, known, settled_ns):
            yield known
            known = []
        yield known

    def contentions(self, fields: Sequence[Any]) -> Iterator[list[Contention]]:
        """What was waited for locks, with the labels that are known by now; some dozens at a time, as `samples`."""
        raw: Iterator[RawContention] = zip(*[iter(fields)] * _RAW_CONTENTION_FIELDS, strict=True)
        while some := [
            Contention(
                self._threads.get(key, _ENDED_THREADS),
                self._stack(number),
                self._stack(waiter) if is_release else None,
                count,
                delay_ns,
                _labels_now(resolve, subject),
            )
            for is_release, key, number, waiter, count, delay_ns, resolve, subject in islice(raw, _AT_ONCE)
        ]:
            yield some

    def lock_waits(self, raw: Iterable[RawWait]) -> list[Contention]:
        """Likewise what is told one by one."""
        return [
            Contention(
                self._threads.get(key, _ENDED_THREADS),
                self._stack(number),
                None,
                1.0,
                float(waited_ns),
                _labels_now(resolve, subject),
                time_ns=time_ns,
                holder=self._threads.get(holder) or self._gone.get(holder),
            )
            for key, number, holder, time_ns, waited_ns, resolve, subject in raw
        ]

    def _stack(self, number: int) -> Stack:
        return self._stacks[number] if number != _NO_STACK else _UNREAD

    def forget_thread(self, key: int) -> None:
        """It has ended, and all samples of it have been taken."""
        thread = self._threads.pop(key, None)
        if thread is not None:
            self._gone[key] = thread
            if len(self._gone) > _MOST_GONE:
                del self._gone[next(iter(self._gone))]
        self._seen_at.pop(key, None)
        if key in self._worked_at:
            stack, work = self._worked_at.pop(key)
            place = stack, _labels_of(work, final=False)
            if place in self._ended_at or len(self._ended_at) < _MOST_ENDED_PLACES:
                self._ended_at[place] = self._ended_at.get(place, 0) + 1

    def rest_of(self, key: int, cpu_ns: int, now: int) -> Sample:
        """What a thread has used since its last sample.

        It is less than one sample's worth, and as likely where the thread worked last as anywhere.
        """
        stack, work = self._worked_at.get(key, (_UNSAMPLED, None))
        if stack is _UNSAMPLED:
            self.not_placed_ns += cpu_ns
        thread = self._threads.get(key, _ENDED_THREADS)
        return Sample(now, thread, stack, cpu_ns, cpu_ns, _labels_of(work, final=True))

    def rest_of_the_ended(self, unseen_ns: int, period_ns: int, now: int) -> list[Sample]:
        """What threads have used that ended since the last time, after their last sample or without any.

        The former is less than a period each, and as likely where they worked last as anywhere.
        """
        samples = []
        places, self._ended_at = self._ended_at, {}
        threads = sum(places.values())
        tails = min(unseen_ns, threads * period_ns) if unseen_ns > 0 else 0
        for (stack, labels), count in places.items():
            tail = tails * count // threads
            samples.append(Sample(now, _ENDED_THREADS, stack, tail, tail, labels))
        if unseen_ns - tails > _SLACK_NS:
            self.not_placed_ns += unseen_ns - tails
            samples.append(Sample(now, _ENDED_THREADS, _ENDED, unseen_ns - tails, unseen_ns - tails))
        return samples

    def _settled(self, settled_ns: int) -> list[Sample]:
        """Of those that waited, the ones whose labels are known by now, or that are from before `settled_ns`."""
        pending, self._waiting = self._waiting, []
        known = []
        for sample, work in pending:
            if work.settle(final=sample.time_ns <= settled_ns):
                known.append(sample._replace(labels=work.labels))
            else:
                self._waiting.append((sample, work))
        return known

    def _take(self, raw: Iterator[RawSample], known: list[Sample], settled_ns: int) -> bool:
        """Adds to `known` those whose labels are known, or that are from before `settled_ns`, and keeps the others.

        Returns whether that ended because they are enough, and not because there are no more.
        """
        threads, stacks, seen_at = self._threads, self._stacks, self._seen_at
        for when, key, number, cpu, waited, seen, locks_waited, locks_seen, why, resolve, subject in raw:
            thread = threads.get(key, _ENDED_THREADS)
            if waited:
                stack, work, reason = seen_at.get(key, _NOWHERE)
                labels = () if work is None else _labels(work, final=when - seen <= settled_ns)
                stay = Sample(when - seen, thread, stack, 0, waited, labels or (), locks_waited, reason)
                if labels is None and work is not None:
                    self._waiting.append((stay, work))
                else:
                    known.append(stay)
            if number == _NO_STACK and not cpu and not seen:
                continue
            work = _Work(resolve, subject) if resolve is not None else None
            moving = False
            if number == _NO_STACK:
                stack = _UNREAD
                self.not_placed_ns += cpu
            else:
                stack = stacks[number]
                if stack.frames[0] is _RUNNING:
                    # It ran when it was looked at, and notes itself where it works.
                    stack, work = self._worked_at.get(key, (stack, None))
                    moving = True
            reason = _REASONS[why]
            if seen or not cpu:
                # A look at the moment at which the thread was found has seen where it is, and no time of it.
                seen_at[key] = stack, work, reason
            if cpu:
                self._worked_at[key] = stack, work
            labels = () if work is None else _labels(work, final=when <= settled_ns)
            # Who works for some time is there for as long.
            sample = Sample(when, thread, stack, cpu, cpu + seen, labels or (), locks_seen, reason, moving)
            if labels is None and work is not None:
                self._waiting.append((sample, work))
            else:
                known.append(sample)
            if len(known) >= _AT_ONCE:
                return True
        return False

    def _frame(self, function: str | int, file: str | None, line: int, start_line: int) -> Frame:
        if file is None or isinstance(function, int):
            return _SPECIAL[int(function)]
        module = self._modules.of(file)
        return self._untrack(Frame(f"{module}.{function}" if module else function, file, line, start_line))

    def _forget_numbers(self) -> None:
        self._frames.clear()
        self._stacks.clear()


def _labels(work: _Work | None, *, final: bool) -> Labels | None:
    """None while they are not known, which the `final` time is never."""
    return () if work is None else work.labels if work.settle(final=final) else None


def _labels_of(work: _Work | None, *, final: bool) -> Labels:
    """Those that are known by now."""
    return _labels(work, final=final) or ()


def _labels_now(resolve: Resolve | None, subject: object) -> Labels:
    if resolve is None:
        return ()
    try:
        return resolve(subject) or ()
    except Exception:
        return ()  # as in _Work
