"""The portable engine: `sys._current_frames()` from a thread, as exact as the GIL lets it be.

What makes it cheap: the process's CPU clock tells in one call whether anybody ran at all, and a thread whose own
clock stands still has not run, so its stack is the one seen last. What makes it right: CPU time comes from the
threads' clocks, not from counting looks, and is put on a stack only when its thread is seen running or waiting for
the GIL. What it cannot see, because the GIL comes to it only between two bursts, it says under `<not seen running>`.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from types import FrameType

from profiling_middleware.model import Frame, Reason, Sample, Stack, Thread
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.sampling.clocks import (
    OwnCpu,
    RunState,
    RunStates,
    ThreadClocks,
)
from profiling_middleware.sampling.engine import EngineReport, Listener
from profiling_middleware.sampling.estimated import EstimatedClocks
from profiling_middleware.sampling.lock_log import HIDDEN
from profiling_middleware.sampling.lock_waits import LockWaits
from profiling_middleware.sampling.watched import WatchedThread, WatchedThreads
from profiling_middleware.stacks import StackTable, reading_others

# CPU time that may go unnoticed between two looks: less than the cheapest wake-up of a thread.
_SLACK_NS = 20_000
# A burst that was not seen running goes to the next stack that is, if it is at most this many looks long.
_CARRIED_LOOKS = 2
# A thread that has not run for so long is asked for its clock only when the process ran more than the others did.
_HOT_NS = 1_000_000_000
_COST_WEIGHT = 0.05
_TRIES = 4
_DEAREST_LOOK_NS = 500_000

_OWN_FRAME = Frame("<profiling_middleware sampling>", "", 0, 0)
_ENDED_FRAME = Frame("<thread ended between two looks>", "", 0, 0)


class PythonEngine:
    """Samples in Python; runs wherever CPython does. See `sampling.engine.Engine` for the methods."""

    name = "python"

    def __init__(self, *, rate: int, max_overhead: float, jitter: random.Random | None = None) -> None:
        self.rate = rate
        self._max_overhead = max_overhead
        self._jitter = jitter or random.Random()
        self._listeners: list[Listener] = []
        self._clocks = ThreadClocks() if ThreadClocks.available() else EstimatedClocks()
        self._states = RunStates()
        self._stacks = StackTable(hidden=HIDDEN)
        self._locks = THIS_PROCESS.only(LockWaits)
        self._locks_cost_ns = self._locks.cost_ns
        self._own_stack = self._stacks.intern((_OWN_FRAME,))
        self._ended = Thread("ended threads", 0)
        self._threads = WatchedThreads(self._clocks, self._stacks)
        self._lost = self._looks = self._not_placed_ns = 0
        self._own = OwnCpu()
        self._own_looked_ns = self._own_given_ns = 0
        self._cost_ns = 0.0
        self._interval = 1 / rate
        self._last_ns = self._accounted_ns = 0

    @property
    def rate_used(self) -> float:
        return 1 / self._interval

    @property
    def limits(self) -> tuple[str, ...]:
        """What this engine cannot know here, for the profile's comments."""
        switch = f"{sys.getswitchinterval() * 1000:g} ms"
        known: tuple[str, ...] = (
            "this engine sees a thread only where it lets go of the GIL: functions and lines are approximate",
            f"work shorter than the switch interval ({switch}) between two waits is mostly not seen running: its "
            "CPU time is exact and stands under <not seen running>",
        )
        if any(map(_wants_locks, self._listeners)):
            known = (*known, *self._locks.limits)
        if not self._clocks.exact:
            return (*known, "this system has no CPU clocks for threads: the process's CPU time is shared by estimate")
        if self._states.available:
            return known
        return (
            *known,
            "/proc/self/task/TID/syscall cannot be read here: CPU time is put on the stack seen after it was spent",
        )

    def attach(self, listener: Listener) -> None:
        if self._listeners:
            self._cut()
        else:
            self._begin()
        self._listeners.append(listener)
        if _wants_locks(listener):
            self._locks.attach(listener)

    def detach(self, listener: Listener) -> None:
        if listener not in self._listeners:
            return
        self._cut()
        self._locks.forget(listener)
        self._listeners.remove(listener)
        if not any(map(_wants_locks, self._listeners)):
            for watched in self._threads.all():
                watched.locks_ns = 0  # they are counted anew the next time
        if not self._listeners:
            self.close()

    def flush(self) -> None:
        if self._listeners:
            self._cut()

    def set_wait_rates(self, block_rate_ns: int, mutex_fraction: int) -> None:
        self._locks.set_rates(block_rate_ns, mutex_fraction)

    def look(self) -> float:
        self._observe(everything=False)
        self._locks.look()
        if self._locks.is_crowded:
            self._locks.keep_threads({watched.native_id for watched in self._threads.all()})
        spent = self._own.total_ns() - self._own_looked_ns
        self._own_looked_ns += spent
        # The thread does more than look, such as ending a capture: that is no reason to look less often afterwards.
        self._cost_ns += _COST_WEIGHT * (min(spent, _DEAREST_LOOK_NS + 2 * self._cost_ns) - self._cost_ns)
        self._stacks.make_room()
        self._interval = max(1 / self._looks_wanted(), self._cost_ns / 1e9 / self._max_overhead)
        # A fixed period would march in step with programs that sleep whole milliseconds.
        return self._interval * self._jitter.uniform(0.5, 1.5)

    def _looks_wanted(self) -> float:
        """Looks a second: those who only hear of waits need fewer."""
        if any(listener.hears_work for listener in self._listeners):
            return self.rate
        return max((listener.wait_looks for listener in self._listeners), default=0.0) or self.rate

    def report(self) -> EngineReport:
        return EngineReport(
            looks=self._looks,
            cpu_ns=self._own.total_ns() + self._locks.cost_ns - self._locks_cost_ns,
            lost_stacks=self._lost,
            not_placed_ns=self._not_placed_ns,
            table_clears=self._stacks.clears,
        )

    def pause(self) -> None:
        """Nothing to do: it has no thread of its own."""

    def resume(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        for listener in self._listeners:
            self._locks.forget(listener)
        self._listeners.clear()
        self._threads.clear()
        self._states.close()
        self._stacks.clear()

    # -- beginning and end --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        # Everything used so far is history: the first look only takes the stand of all clocks.
        self._own_looked_ns = self._own_given_ns = self._own.total_ns()
        self._last_ns = now = time.monotonic_ns()
        self._clocks.refresh()
        with reading_others():
            self._threads.discover(sys._current_frames(), now)
        self._threads.find_natives(now)
        self._accounted_ns = time.process_time_ns() - self._own.total_ns()

    # -- one look -----------------------------------------------------------------------------------------------

    def _observe(self, *, everything: bool) -> None:
        now = time.monotonic_ns()
        self._looks += 1
        self._clocks.refresh()
        self._locks.catch_up()
        unseen = time.process_time_ns() - self._own.total_ns() - self._accounted_ns
        samples: list[Sample] = []
        if unseen > _SLACK_NS or everything:
            with reading_others():
                self._observe_threads(now, unseen, everything, samples)
        self._last_ns = now
        self._deliver(samples)

    def _observe_threads(self, now: int, unseen: int, everything: bool, samples: list[Sample]) -> None:
        moved: list[tuple[WatchedThread, int]] = []
        cold: list[WatchedThread] = []
        for watched in self._threads.all():
            if not everything and now - watched.ran_ns > _HOT_NS:
                cold.append(watched)
            else:
                unseen -= self._measure(watched, moved, samples)
        frames = sys._current_frames()
        if unseen > _SLACK_NS:
            for watched in cold:
                unseen -= self._measure(watched, moved, samples)
        if unseen > _SLACK_NS or everything:
            new = self._threads.discover(frames, self._last_ns)
            unseen -= sum(spent for _, spent in new)
            moved += new
            self._threads.find_natives(now)
        for watched, spent in moved:
            self._accounted_ns += spent
            self._place(watched, frames, spent, now, samples)
        # The frames keep what their functions hold alive: let go before anything else is done.
        frames.clear()
        if unseen > _SLACK_NS:
            self._accounted_ns += unseen
            self._not_placed_ns += unseen
            samples.append(Sample(now, self._ended, self._stacks.intern((_ENDED_FRAME,)), unseen, 0))

    def _measure(self, watched: WatchedThread, moved: list[tuple[WatchedThread, int]], samples: list[Sample]) -> int:
        spent = self._threads.spent_ns(watched)
        if spent is None:
            if watched.ident is not None:
                self._close_wait(watched, self._last_ns, samples)
                self._give_up(watched, self._last_ns, samples)
            self._threads.forget(watched)
            self._locks.forget_thread(watched.native_id)
            self._states.forget(watched.native_id)
            return 0
        if spent:
            moved.append((watched, spent))
        return spent

    def _place(
        self, watched: WatchedThread, frames: dict[int, FrameType], spent: int, now: int, samples: list[Sample]
    ) -> None:
        watched.ran_ns = now
        before = watched.stack
        if watched.ident is None:
            samples.append(Sample(now, watched.thread, before, spent, 0))
            return
        leaf, seen = frames.get(watched.ident), None
        for _ in range(_TRIES):
            seen = self._stacks.take(leaf) if leaf is not None else None
            if leaf is None or seen is not None:
                break
            # It went on meanwhile, and may wait by now: then it is not looked at again before it goes on once more.
            leaf = sys._current_frames().get(watched.ident)
        if leaf is None or seen is None:
            self._lost += leaf is not None
            watched.carried_ns += spent
            return
        self._close_wait(watched, self._last_ns, samples)
        watched.stack = seen
        if self._was_running(watched, leaf):
            cpu = spent + watched.carried_ns
            watched.carried_ns = 0
            # What it has waited since it was seen last, it has waited somewhere else.
            passed = now - watched.since_ns
            locks = self._lock_waits(watched, now, passed)
            samples.append(Sample(now, watched.thread, seen, cpu, passed, lock_ns=locks, moving=True))
            watched.since_ns = now
        else:
            watched.carried_ns += spent
            if watched.carried_ns > _CARRIED_LOOKS * self._interval * 1e9:
                self._give_up(watched, now, samples, before)

    def _was_running(self, watched: WatchedThread, leaf: FrameType) -> bool:
        """Whether the thread was working where it is seen now."""
        state = self._states.of(watched.native_id)
        if state is RunState.WAITING:
            measured = self._locks.is_waiting(watched.native_id)
            watched.reason = Reason.MEASURED if measured else self._states.reason
            self._stacks.seen_waiting(leaf, watched.reason)
            return False
        # Who is about to run was either interrupted in its work, or has just been woken from a wait and not worked
        # since. The two look the same, so where threads were seen waiting, the doubtful is not taken for work. Then it
        # has waited for what was waited for there: what passed is not told twice where locks tell it themselves.
        waits = self._stacks.waits_at(leaf) if state is RunState.ABLE else None
        watched.reason = waits or Reason.UNKNOWN
        return waits is None

    def _close_wait(self, watched: WatchedThread, until: int, samples: list[Sample]) -> None:
        waited = until - watched.since_ns
        if waited > 0:
            locks, reason = self._lock_waits(watched, until, waited), watched.reason
            samples.append(Sample(until, watched.thread, watched.stack, 0, waited, lock_ns=locks, reason=reason))
            watched.since_ns = until

    def _lock_waits(self, watched: WatchedThread, until: int, passed: int) -> int:
        """How much of the time that passed up to `until` is told as contentions, too."""
        # Not more than passed: it may have come back from its lock since.
        part = max(0, min(passed, self._locks.waited_ns(watched.native_id, until) - watched.locks_ns))
        watched.locks_ns += part
        return part

    def _give_up(self, watched: WatchedThread, now: int, samples: list[Sample], before: Stack | None = None) -> None:
        """Puts what was carried below the callers that the stacks before and now have in common."""
        if watched.carried_ns:
            stack = self._stacks.common_part(before or watched.stack, watched.stack)
            samples.append(Sample(now, watched.thread, stack, watched.carried_ns, 0))
            self._not_placed_ns += watched.carried_ns
            watched.carried_ns = 0

    # -- listeners ----------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        """Hands out all that is pending, so that a capture beginning or ending now gets its own part only."""
        self._observe(everything=True)
        samples: list[Sample] = []
        now = self._last_ns
        for watched in self._threads.all():
            if watched.ident is not None:
                self._close_wait(watched, now, samples)
                self._give_up(watched, now, samples)
        own = self._own.total_ns()
        thread = Thread(threading.current_thread().name, threading.get_native_id())
        samples.append(Sample(now, thread, self._own_stack, own - self._own_given_ns, 0))
        self._own_given_ns = own
        self._deliver(samples)
        self._locks.flush()

    def _deliver(self, samples: list[Sample]) -> None:
        if samples:
            for listener in self._listeners:
                listener.receive(samples)


def _wants_locks(listener: Listener) -> bool:
    return listener.hears_waits or listener.wait_moments_ns > 0
