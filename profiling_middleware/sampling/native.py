"""The native engine: CPU time from timers on the threads' own CPU clocks, waits from a look without the GIL.

`_native.c` takes the stacks; here it is told what to do, and what it costs is kept within its bound. What it has seen
becomes samples in `accounts.py`.
Where SIGPROF is not to be had the same code polls: a thread without the GIL looks at whoever has run.
"""

from __future__ import annotations

import _thread
import math
import os
import threading
import time
from typing import NamedTuple

from profiling_middleware.labels import CURRENT
from profiling_middleware.model import Contention, Sample, Thread
from profiling_middleware.sampling import _native
from profiling_middleware.sampling.accounts import NATIVE_STACK, Accounts, stack_of
from profiling_middleware.sampling.clocks import OwnCpu
from profiling_middleware.sampling.engine import (
    DEFAULT_BLOCK_RATE_NS,
    DEFAULT_MUTEX_FRACTION,
    EngineReport,
    Listener,
)
from profiling_middleware.sampling.governor import Governor
from profiling_middleware.sampling.natives import NativeThreads

# What handlers have noted is fetched so often that the ring, of a thousand stacks and more, is never full, also when
# all processors begin to work at once. Each time the GIL has to be waited for, which costs more than all else here.
_MOST_DRAIN_SECONDS, _IDLE_DRAIN_SECONDS, _LEAST_DRAIN_SECONDS = 2.0, 0.5, 0.1
_SAMPLES_A_RING, _SAMPLES_A_DRAIN = 1_000, 400
_FORGET_SECONDS = 1.0

_OWN_STACK = stack_of("<profiling_middleware sampling>")


class Counts(NamedTuple):
    """What the extension has done since the process started."""

    samples: int
    """Taken by signal handlers."""
    looks: int
    handlers_ns: int
    looker_ns: int
    lost: int
    """Stacks that could not be read."""
    dropped: int
    """Samples for which there was no room."""
    clears: int
    """How often the tables were full and began anew."""
    unread_states: int
    """How often the system did not say whether a thread runs."""


def _counts() -> Counts:
    return Counts(*_native.counts())


def _wants_locks(listener: Listener) -> bool:
    """Whether it wants to know why threads wait, and for which locks."""
    return listener.hears_waits or listener.wait_moments_ns > 0


class NativeEngine:
    """Samples without the GIL. See `sampling.engine.Engine` for the methods; there is one at a time in a process."""

    def __init__(self, *, rate: int, max_overhead: float, signals: bool) -> None:
        """With `signals` CPU time comes from SIGPROF while nobody else has it, else from polling."""
        self.rate = rate
        self._wants_signals = self._has_signal = signals
        self._listeners: list[Listener] = []
        self._governor = Governor(max_overhead)
        self._accounts = Accounts()
        self._natives = NativeThreads(_native.task_ids, _native.task_name)
        self._own = OwnCpu()
        at_once = _SAMPLES_A_RING / (rate * (os.cpu_count() or 1))
        self._longest_drain = min(_MOST_DRAIN_SECONDS, max(_IDLE_DRAIN_SECONDS, at_once))
        self._unarmed = 0
        self._observes_locks = False
        self._block_rate_ns, self._mutex_fraction = DEFAULT_BLOCK_RATE_NS, DEFAULT_MUTEX_FRACTION
        self._forgot = 0.0
        self._process_ns = self._own_given_ns = self._looker_ns = 0

    @property
    def name(self) -> str:
        return "native" if self._has_signal else "polling"

    @property
    def rate_used(self) -> float:
        return self.rate / self._governor.stretch

    @property
    def limits(self) -> tuple[str, ...]:
        """What this engine cannot know here, for the profile's comments."""
        limits = []
        if self._wants_signals and not self._has_signal:
            limits.append("SIGPROF belongs to somebody else in this process: stacks were polled instead")
        if self._unarmed:
            limits.append(f"{self._unarmed} threads got no timer (RLIMIT_SIGPENDING): they were not sampled")
        if not self._has_signal and _counts().unread_states:
            limits.append(
                "/proc/self/task/TID/syscall cannot be read here: work and waits are told apart by clocks only"
            )
        if any(map(_wants_locks, self._listeners)) and not self._observes_locks:
            limits.append("the locks of this interpreter are not as they are known: they are seen by looks only")
        _, _, without_stack, _, untold = _native.contention_totals()
        if without_stack:
            limits.append(f"{without_stack} contentions stand without their stack: there was no room for more at once")
        if untold and any(listener.wait_moments_ns for listener in self._listeners):
            limits.append(
                f"{untold} long waits for locks are left out since the process started: there was no room for them"
            )
        return tuple(limits)

    def attach(self, listener: Listener) -> None:
        if self._listeners:
            self._cut()
        else:
            self._begin()
        self._listeners.append(listener)
        if _wants_locks(listener):
            self._observes_locks = _native.observe_locks()
        self._adjust()

    def detach(self, listener: Listener) -> None:
        if listener not in self._listeners:
            return
        self._cut()
        self._listeners.remove(listener)
        if not any(map(_wants_locks, self._listeners)):
            _native.leave_locks()
        if self._listeners:
            self._adjust()
        else:
            self.close()

    def flush(self) -> None:
        if self._listeners:
            self._cut()

    def set_wait_rates(self, block_rate_ns: int, mutex_fraction: int) -> None:
        self._block_rate_ns, self._mutex_fraction = block_rate_ns, mutex_fraction
        self._adjust_wait_rates()

    def look(self) -> float:
        # Who lives now gets a name, also if it could not be enlisted as it began. And this thread is known as our own:
        # a fork may have ended the timer's thread, and another one have taken its place.
        self._find_threads()
        count = self._drain()
        if self._has_signal and not _native.owns_signal():
            self._step_back()
        now = time.monotonic()
        if now - self._forgot > _FORGET_SECONDS:
            self._forgot = now
            _native.forget_ended()
        if self._governor.changes(now, self._cost_ns()):
            self._adjust()
        longest = self._longest_drain
        return min(longest, max(_LEAST_DRAIN_SECONDS, longest * _SAMPLES_A_DRAIN / max(1, count)))

    def report(self) -> EngineReport:
        counts = _counts()
        return EngineReport(
            looks=counts.samples + counts.looks,
            cpu_ns=self._cost_ns(),
            lost_stacks=counts.lost + counts.dropped,
            not_placed_ns=self._accounts.not_placed_ns,
            table_clears=counts.clears,
        )

    def pause(self) -> None:
        _native.pause_looking()

    def resume(self) -> None:
        _native.resume_looking()

    def close(self) -> None:
        # Timers first: a signal that nobody expects any more would kill the process.
        _native.set_period(0)
        _native.stop_looking()
        if self._has_signal:
            _native.uninstall()
        if threading.get_native_id is _native.enlist:
            threading.get_native_id = _thread.get_native_id
        _native.leave_locks()
        _native.set_wait_moments(0)
        _native.clear()
        self._listeners.clear()
        self._accounts.clear()

    # -- beginning, end, and change -----------------------------------------------------------------------------

    def _begin(self) -> None:
        self._has_signal = self._wants_signals and _native.install()
        # Each thread that `threading` starts calls this first of all. Otherwise it would be found some milliseconds
        # later, and a thread that serves one request may have ended by then.
        if threading.get_native_id is _thread.get_native_id:
            threading.get_native_id = _native.enlist
        # The extension is the process's: what it knows it may have told another engine.
        _native.clear()
        self._accounts.clear()
        _native.watch(CURRENT)
        self._find_threads()
        _native.settle()
        self._governor.begin(time.monotonic(), self._cost_ns())
        self._take_natives(())
        self._process_ns = time.process_time_ns()
        self._own_given_ns = self._own.total_ns()
        self._looker_ns = _counts().looker_ns

    def _find_threads(self) -> None:
        _native.discover(threading.get_native_id())

    def _adjust(self) -> None:
        """Sets the timers and the looks as the listeners and the governor want them."""
        stretch = self._governor.stretch
        looks = max((listener.wait_looks for listener in self._listeners), default=0.0)
        hears_work = any(listener.hears_work for listener in self._listeners)
        asks_why = any(map(_wants_locks, self._listeners))
        if self._has_signal:
            self._unarmed = _native.set_period(int(1e9 * stretch / self.rate) if hears_work else 0)
        elif hears_work:
            looks = self.rate
        interval = int(1e9 * stretch / looks) if looks else 0
        _native.look(interval, not self._has_signal and hears_work, asks_why, self._has_signal)
        wanted = [listener.wait_moments_ns for listener in self._listeners if listener.wait_moments_ns]
        _native.set_wait_moments(min(wanted, default=0))
        self._adjust_wait_rates()

    def _adjust_wait_rates(self) -> None:
        if not any(listener.hears_waits for listener in self._listeners):
            _native.set_contention_rates(0, 0)
            return
        stretch = self._governor.stretch
        _native.set_contention_rates(int(self._block_rate_ns * stretch), math.ceil(self._mutex_fraction * stretch))

    def _step_back(self) -> None:
        """Somebody has taken SIGPROF: the timers would call their handler."""
        _native.set_period(0)
        self._cut()  # what threads have waited: looks begin anew
        _native.stop_looking()
        _native.uninstall()
        self._has_signal = False
        self._adjust()

    def _cost_ns(self) -> int:
        counts = _counts()
        _, _, _, contentions_ns, _ = _native.contention_totals()
        return self._own.total_ns() + counts.handlers_ns + counts.looker_ns + contentions_ns

    # -- samples ------------------------------------------------------------------------------------------------

    def _drain(self, *, final: bool = False) -> int:
        """Hands out what there is; returns how many samples."""
        accounts = self._accounts
        ended = _native.ended_threads()  # before, so that all they have left is in what comes now
        fields, stacks, frames, begins_anew, contention_fields, raw_waits = _native.drain()
        accounts.learn_threads(_native.new_threads())
        if not begins_anew:
            accounts.learn_stacks(stacks, frames, begins_anew=False)
        for contentions in accounts.contentions(contention_fields):
            self._tell_contentions(contentions)
        self._tell_waits(accounts.lock_waits(raw_waits))
        if begins_anew:  # what was waited has the old numbers
            accounts.learn_stacks(stacks, frames, begins_anew=True)
        count = 0
        for samples in accounts.samples(fields, final=final):
            count += len(samples)
            self._deliver(samples)
        for key in ended:
            accounts.forget_thread(key)
        return count

    def _tell_contentions(self, contentions: list[Contention]) -> None:
        for listener in self._listeners:
            if listener.hears_waits:
                listener.receive_contentions(contentions)

    def _tell_waits(self, waits: list[Contention]) -> None:
        for listener in self._listeners:
            least = listener.wait_moments_ns
            told = [wait for wait in waits if wait.delay_ns >= least] if least else []
            if told:
                listener.receive_lock_waits(told)

    def _cut(self) -> None:
        """Hands out all that is pending, so that a capture beginning or ending now gets its own part only."""
        _native.forget_ended()
        rests, settled_ns = _native.settle()
        self._drain(final=True)
        now = time.monotonic_ns()
        samples = [self._accounts.rest_of(key, rest, now) for key, _, rest, ours in rests if rest and not ours]
        samples += self._without_python(now, settled_ns, {native_id for _, native_id, _, _ in rests})
        self._deliver(samples)

    def _without_python(self, now: int, settled_ns: int, known: set[int]) -> list[Sample]:
        """What threads without Python have used, those that ended unseen, and this engine itself."""
        own, looker = self._own.total_ns(), _counts().looker_ns
        mine = Thread(threading.current_thread().name, threading.get_native_id())
        spent_by_engine = own - self._own_given_ns + looker - self._looker_ns
        samples = [Sample(now, mine, _OWN_STACK, spent_by_engine, 0)]
        process = time.process_time_ns()
        unseen = process - self._process_ns - settled_ns - (looker - self._looker_ns)
        self._process_ns, self._own_given_ns, self._looker_ns = process, own, looker
        for thread, spent in self._take_natives(known):
            samples.append(Sample(now, thread, NATIVE_STACK, spent, 0))
            unseen -= spent
        return samples + self._accounts.rest_of_the_ended(unseen, int(1e9 / self.rate_used), now)

    def _take_natives(self, known: set[int] | tuple[()]) -> list[tuple[Thread, int]]:
        spent = self._natives.take({*known, *self._accounts.native_ids, _native.looker_id()})
        _native.note_natives(self._natives.used)
        return spent

    def _deliver(self, samples: list[Sample]) -> None:
        if samples:
            for listener in self._listeners:
                listener.receive(samples)
