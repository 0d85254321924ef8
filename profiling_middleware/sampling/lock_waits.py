"""Waits for threads' locks, for the portable engine: sums what is noted in the log. The counterpart of csrc/locks.c."""

from __future__ import annotations

import time
from typing import Any

from profiling_middleware.contentions import ContentionEvents
from profiling_middleware.labels import labels_of
from profiling_middleware.model import Contention, Stack, Thread
from profiling_middleware.sampling.engine import Listener
from profiling_middleware.sampling.lock_factories import LockFactories
from profiling_middleware.sampling.lock_log import LockLog, LockNotes, Release
from profiling_middleware.sampling.lock_observer import Caller, Wait
from profiling_middleware.sampling.lock_ways import can_be_measured
from profiling_middleware.sampling.names import thread_name
from profiling_middleware.waiters import WaitTable

# What is over sooner was not to wait.
_LEAST_WAIT_NS = 5_000
# Who releases a lock notes that afterwards, and may wait for the GIL in between: so long things are put in order.
_LATE_NS = 50_000_000
_MOST_MOMENTS = 2_048
_MOST_THREADS = 1_000

_BEGIN, _RELEASE, _END = range(3)


class LockWaits:
    """Measures while somebody listens. All calls come from the timer's thread; there is one in a process."""

    def __init__(self) -> None:
        self.available = can_be_measured()
        """Whether locks can be measured by this interpreter."""
        self.untold = 0
        """Long waits that found no room since the process started."""
        self._listeners: list[Listener] = []
        self._events = ContentionEvents()
        self._notes = LockNotes()
        self._factories = LockFactories(self._notes)
        self._cost_ns = self._dropped = self._failed = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        log, self._notes.log = self._notes.log, None
        if log is not None:
            self._cost_ns += log.cost_ns
            self._dropped += log.dropped
            self._failed += log.failed
        self._table = WaitTable()
        self._open: list[Wait] = []
        self._pending: list[tuple[int, int, Any]] = []
        """What has happened, at what time: waits that begin or end, releases."""
        self._totals: dict[int, int] = {}
        self._threads: dict[tuple[int, str], Thread] = {}

    @property
    def cost_ns(self) -> int:
        """What noting has cost the service's threads since the process started; approximate."""
        return self._cost_ns + (self._notes.log.cost_ns if self._notes.log is not None else 0)

    @property
    def limits(self) -> tuple[str, ...]:
        """What is not measured, in sentences for the profile's comments."""
        if not self.available:
            return ("this engine sees waits for this interpreter's locks by looks only, and not who made others wait",)
        log = self._notes.log
        known = [
            "waits for locks are measured where `threading` has made the lock since this began: older locks, those "
            "that C waits for, and a condition's return to its RLock are seen by looks only, without who made others "
            "wait"
        ]
        if dropped := self._dropped + (log.dropped if log is not None else 0):
            known.append(f"{dropped} contentions of locks found no room since the process started")
        if failed := self._failed + (log.failed if log is not None else 0):
            known.append(f"{failed} contentions of locks could not be noted since the process started")
        if self.untold and any(listener.wait_moments_ns for listener in self._listeners):
            known.append(
                f"{self.untold} long waits for locks are left out since the process started: there was no room for them"
            )
        return tuple(known)

    def set_rates(self, block_rate_ns: int, mutex_fraction: int) -> None:
        """As `sampling.engine.Engine.set_wait_rates`."""
        self._events.set_rates(block_rate_ns, mutex_fraction)

    def attach(self, listener: Listener) -> None:
        """From now on `listener` receives contentions."""
        if not self.available:
            return
        if self._notes.log is None:
            self._notes.log = LockLog(self._events)
            self._factories.replace()
        self.flush()
        self._listeners.append(listener)

    def detach(self, listener: Listener) -> None:
        """Hands `listener` everything up to now, then nothing more."""
        if listener in self._listeners:
            self.flush()
            self.forget(listener)

    def forget(self, listener: Listener) -> None:
        """Hands it nothing more. Without a listener everything is put back; in a forked child, too."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        if not self._listeners:
            self._factories.put_back()
            self._begin_anew()

    # -- for the engine's looks ----------------------------------------------------------------------------------

    def waited_ns(self, native_id: int, until: int) -> int:
        """What a thread has waited for measured locks since somebody listens."""
        log = self._notes.log
        wait = log.outermost.get(native_id) if log is not None else None
        waited = self._totals.get(native_id, 0)
        if wait is not None and not wait.counted:
            waited += max(0, (wait.ended_ns or until) - wait.began_ns)
        return waited

    def is_waiting(self, native_id: int) -> bool:
        """Whether a thread waits for a measured lock now."""
        log = self._notes.log
        wait = log.outermost.get(native_id) if log is not None else None
        return wait is not None and not wait.ended_ns

    def forget_thread(self, native_id: int) -> None:
        """It has ended."""
        self._totals.pop(native_id, None)
        if self._notes.log is not None:
            self._notes.log.outermost.pop(native_id, None)

    @property
    def is_crowded(self) -> bool:
        """Whether more threads are remembered than there can be: who knows which live should tell the others' end."""
        return len(self._totals) > _MOST_THREADS

    def keep_threads(self, native_ids: set[int]) -> None:
        """All others have ended."""
        for native_id in set(self._totals) - native_ids:
            self.forget_thread(native_id)

    def catch_up(self) -> None:
        """Knows from now on what has been waited up to now."""
        if self._notes.log is not None:
            self._fetch(self._notes.log)

    # -- from the log to the listeners ---------------------------------------------------------------------------

    def look(self) -> None:
        """Hands out what is so long ago that everything before it is known."""
        self._hand_out(time.monotonic_ns() - _LATE_NS)

    def flush(self) -> None:
        """Hands out everything up to now."""
        self._hand_out(time.monotonic_ns())

    def _hand_out(self, until: int) -> None:
        log = self._notes.log
        if log is None:
            return
        self._fetch(log)
        if log.stacks.is_full:
            log.stacks = type(log.stacks)(hidden=log.stacks.hidden)  # who uses the old one now goes on with it
        if len(self._threads) > _MOST_THREADS:
            self._threads.clear()
        self._pending.sort(key=lambda event: event[:2])
        contentions: list[Contention] = []
        moments: list[Contention] = []
        done = 0
        for when, what, subject in self._pending:
            if when > until:
                break
            done += 1
            if what == _BEGIN:
                self._table.begin(_key(subject), subject.stack, when)
            elif what == _RELEASE:
                self._note_release(subject, contentions)
            else:
                self._note_end(subject, when, contentions, moments)
        del self._pending[:done]
        self._tell(contentions, moments)

    def _fetch(self, log: LockLog) -> None:
        """Others go on adding: what comes from now on is for the next time."""
        fresh = [log.waits.popleft() for _ in range(len(log.waits))]
        self._pending += [(wait.began_ns, _BEGIN, wait) for wait in fresh]
        goes_on: list[Wait] = []
        for wait in self._open + fresh:
            ended = wait.ended_ns
            if not ended:
                goes_on.append(wait)
                continue
            self._pending.append((max(ended, wait.began_ns), _END, wait))
            if not wait.is_inner:
                native_id = wait.thread.native_id
                self._totals[native_id] = self._totals.get(native_id, 0) + max(0, ended - wait.began_ns)
                wait.counted = True
        self._open = goes_on
        self._pending += [
            (release.at_ns, _RELEASE, release) for release in [log.releases.popleft() for _ in range(len(log.releases))]
        ]

    def _note_release(self, release: Release, contentions: list[Contention]) -> None:
        waited, waiter = self._table.take(release.way, release.at_ns)
        if not waited or waiter is None:
            return
        stack, times = waiter if release.stack is None else release.stack, release.times
        contention = Contention(
            self._thread(release.caller), stack, waiter, times, times * waited, labels_of(release.work)
        )
        if times:
            contentions.append(contention)
        self._table.released(release.way, contention)

    def _note_end(self, wait: Wait, now: int, contentions: list[Contention], moments: list[Contention]) -> None:
        late = self._table.end(_key(wait), wait.began_ns, now)
        if late is not None and late.delay_ns:
            contentions.append(late)
        waited = now - wait.began_ns
        if waited < _LEAST_WAIT_NS and not wait.taken:
            return
        thread, labels = self._thread(wait.thread), labels_of(wait.work)
        stack: Stack = wait.stack
        chosen = self._events.choose_wait(max(1, waited))
        if chosen is not None:
            contentions.append(Contention(thread, stack, None, *chosen, labels))
        least = min((one.wait_moments_ns for one in self._listeners if one.wait_moments_ns), default=0)
        if not least or waited < least:
            return
        if len(moments) >= _MOST_MOMENTS:
            self.untold += 1
            return
        # Who waited in vain has seen releases that were for others.
        holder = late.thread if late is not None and wait.taken else None
        moments.append(Contention(thread, stack, None, 1.0, float(waited), labels, time_ns=now, holder=holder))

    def _tell(self, contentions: list[Contention], moments: list[Contention]) -> None:
        for listener in self._listeners:
            if contentions and listener.hears_waits:
                listener.receive_contentions(contentions)
            least = listener.wait_moments_ns
            told = [wait for wait in moments if wait.delay_ns >= least] if least else []
            if told:
                listener.receive_lock_waits(told)

    def _thread(self, caller: Caller) -> Thread:
        name = caller.name or thread_name(caller.ident, caller.native_id) or "ended threads"
        return self._threads.setdefault((caller.native_id, name), Thread(name, caller.native_id))


def _key(wait: Wait) -> object:
    """What it waits for. Not to be asked whether it is true."""
    return wait if wait.way is None else wait.way
