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

from profiling_middleware.model import Frame, Sample, Stack, Thread
from profiling_middleware.sampling.clocks import (
    OwnCpu,
    RunState,
    RunStates,
    ThreadClocks,
    native_thread_ids,
    native_thread_name,
)
from profiling_middleware.sampling.engine import EngineReport, Listener
from profiling_middleware.sampling.estimated import EstimatedClocks
from profiling_middleware.sampling.stacks import StackTable

# CPU time that may go unnoticed between two looks: less than the cheapest wake-up of a thread.
_SLACK_NS = 20_000
# A burst that was not seen running goes to the next stack that is, if it is at most this many looks long.
_CARRIED_LOOKS = 2
# A thread that has not run for so long is asked for its clock only when the process ran more than the others did.
_HOT_NS = 1_000_000_000
_NATIVE_LIST_NS = 1_000_000_000
_COST_WEIGHT = 0.05
_DEAREST_LOOK_NS = 500_000

_OWN_FRAME = Frame("<profiling_middleware sampling>", "", 0, 0)
_ENDED_FRAME = Frame("<thread ended between two looks>", "", 0, 0)
_NATIVE_FRAME = Frame("<thread without Python>", "", 0, 0)
_NEW_FRAME = Frame("<not seen yet>", "", 0, 0)


class _Watched:
    """A thread under observation."""

    __slots__ = ("carried_ns", "cpu_ns", "ident", "native_id", "ran_ns", "since_ns", "stack", "thread")

    def __init__(self, ident: int | None, native_id: int, name: str, cpu_ns: int, now: int, stack: Stack) -> None:
        self.ident = ident
        self.native_id = native_id
        self.thread = Thread(name, native_id)
        self.cpu_ns = cpu_ns
        self.stack = stack
        self.since_ns = now
        self.carried_ns = 0
        self.ran_ns = now


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
        self._stacks = StackTable()
        self._own_stack = self._stacks.intern((_OWN_FRAME,))
        self._ended = Thread("ended threads", 0)
        self._watched: dict[int, _Watched] = {}
        self._by_ident: dict[int, _Watched] = {}
        self._lost = self._looks = self._not_placed_ns = 0
        self._own = OwnCpu()
        self._own_looked_ns = self._own_given_ns = 0
        self._cost_ns = 0.0
        self._interval = 1 / rate
        self._last_ns = self._natives_listed_ns = self._accounted_ns = 0

    @property
    def limits(self) -> tuple[str, ...]:
        """What this engine cannot know here, for the profile's comments."""
        switch = f"{sys.getswitchinterval() * 1000:g} ms"
        known = (
            "this engine sees a thread only where it lets go of the GIL: functions and lines are approximate",
            f"work shorter than the switch interval ({switch}) between two waits is mostly not seen running: its "
            "CPU time is exact and stands under <not seen running>",
        )
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

    def detach(self, listener: Listener) -> None:
        if listener not in self._listeners:
            return
        self._cut()
        self._listeners.remove(listener)
        if not self._listeners:
            self.close()

    def look(self) -> float:
        self._observe(everything=False)
        spent = self._own.total_ns() - self._own_looked_ns
        self._own_looked_ns += spent
        # The thread does more than look, such as ending a capture: that is no reason to look less often afterwards.
        self._cost_ns += _COST_WEIGHT * (min(spent, _DEAREST_LOOK_NS + 2 * self._cost_ns) - self._cost_ns)
        self._stacks.make_room()
        self._interval = max(1 / self.rate, self._cost_ns / 1e9 / self._max_overhead)
        # A fixed period would march in step with programs that sleep whole milliseconds.
        return self._interval * self._jitter.uniform(0.5, 1.5)

    def report(self) -> EngineReport:
        return EngineReport(
            looks=self._looks,
            cpu_ns=self._own.total_ns(),
            lost_stacks=self._lost,
            not_placed_ns=self._not_placed_ns,
            table_clears=self._stacks.clears,
        )

    def close(self) -> None:
        self._listeners.clear()
        self._watched.clear()
        self._by_ident.clear()
        self._states.close()
        self._stacks.clear()

    # -- beginning and end --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        # Everything used so far is history: the first look only takes the stand of all clocks.
        self._own_looked_ns = self._own_given_ns = self._own.total_ns()
        self._natives_listed_ns = 0
        self._last_ns = now = time.monotonic_ns()
        self._clocks.refresh()
        for ident, frame in sys._current_frames().items():
            if ident != threading.get_ident():
                self._discover(ident, frame, now)
        self._find_natives(now)
        self._accounted_ns = time.process_time_ns() - self._own.total_ns()

    # -- one look -----------------------------------------------------------------------------------------------

    def _observe(self, *, everything: bool) -> None:
        now = time.monotonic_ns()
        self._looks += 1
        self._clocks.refresh()
        unseen = time.process_time_ns() - self._own.total_ns() - self._accounted_ns
        samples: list[Sample] = []
        if unseen > _SLACK_NS or everything:
            self._observe_threads(now, unseen, everything, samples)
        self._last_ns = now
        self._deliver(samples)

    def _observe_threads(self, now: int, unseen: int, everything: bool, samples: list[Sample]) -> None:
        moved: list[tuple[_Watched, int]] = []
        cold: list[_Watched] = []
        for watched in list(self._watched.values()):
            if not everything and now - watched.ran_ns > _HOT_NS:
                cold.append(watched)
            else:
                unseen -= self._measure(watched, moved, samples)
        frames = sys._current_frames()
        if unseen > _SLACK_NS:
            for watched in cold:
                unseen -= self._measure(watched, moved, samples)
        if unseen > _SLACK_NS or everything:
            for ident, frame in frames.items():
                if ident not in self._by_ident and ident != threading.get_ident():
                    unseen -= self._discover(ident, frame, self._last_ns, moved)
            self._find_natives(now)
        for watched, spent in moved:
            self._accounted_ns += spent
            self._place(watched, frames, spent, now, samples)
        # The frames keep what their functions hold alive: let go before anything else is done.
        frames.clear()
        if unseen > _SLACK_NS:
            self._accounted_ns += unseen
            self._not_placed_ns += unseen
            samples.append(Sample(now, self._ended, self._stacks.intern((_ENDED_FRAME,)), unseen, 0))

    def _measure(self, watched: _Watched, moved: list[tuple[_Watched, int]], samples: list[Sample]) -> int:
        cpu = self._clocks.cpu_ns(watched.native_id)
        if cpu is None or cpu < watched.cpu_ns:
            self._bury(watched, samples)
            return 0
        spent = cpu - watched.cpu_ns
        if spent:
            watched.cpu_ns = cpu
            moved.append((watched, spent))
        return spent

    def _place(
        self, watched: _Watched, frames: dict[int, FrameType], spent: int, now: int, samples: list[Sample]
    ) -> None:
        watched.ran_ns = now
        before = watched.stack
        if watched.ident is None:
            samples.append(Sample(now, watched.thread, before, spent, 0))
            return
        leaf = frames.get(watched.ident)
        seen = self._stacks.take(leaf) if leaf is not None else None
        if leaf is None or seen is None:
            self._lost += leaf is not None
            watched.carried_ns += spent
            return
        self._close_wait(watched, self._last_ns, samples)
        watched.stack = seen
        if self._was_running(watched, leaf):
            cpu = spent + watched.carried_ns
            watched.carried_ns = 0
            samples.append(Sample(now, watched.thread, seen, cpu, now - watched.since_ns))
            watched.since_ns = now
        else:
            watched.carried_ns += spent
            if watched.carried_ns > _CARRIED_LOOKS * self._interval * 1e9:
                self._give_up(watched, self._stacks.common_part(before, seen), now, samples)

    def _was_running(self, watched: _Watched, leaf: FrameType) -> bool:
        """Whether the thread was working where it is seen now."""
        state = self._states.of(watched.native_id)
        if state is RunState.WAITING:
            self._stacks.seen_waiting(leaf)
            return False
        # Who is about to run was either interrupted in its work, or has just been woken from a wait and not worked
        # since. The two look the same, so where threads were seen waiting, the doubtful is not taken for work.
        return state is RunState.UNKNOWN or not self._stacks.waits_at(leaf)

    def _close_wait(self, watched: _Watched, until: int, samples: list[Sample]) -> None:
        waited = until - watched.since_ns
        if waited > 0:
            samples.append(Sample(until, watched.thread, watched.stack, 0, waited))
            watched.since_ns = until

    def _give_up(self, watched: _Watched, stack: Stack, now: int, samples: list[Sample]) -> None:
        if watched.carried_ns:
            samples.append(Sample(now, watched.thread, stack, watched.carried_ns, 0))
            self._not_placed_ns += watched.carried_ns
            watched.carried_ns = 0

    # -- threads come and go ------------------------------------------------------------------------------------

    def _discover(
        self, ident: int, frame: FrameType, since: int, moved: list[tuple[_Watched, int]] | None = None
    ) -> int:
        """Watches a thread from now on; with `moved`, what it ran since it was born is still to be placed."""
        native_id = self._clocks.native_id(ident)
        cpu = self._clocks.cpu_ns(native_id) if native_id is not None else None
        if native_id is None or cpu is None:
            return 0
        known = getattr(threading, "_active", {}).get(ident)
        name = known.name if known is not None else native_thread_name(native_id)
        stack = self._stacks.take(frame) or self._stacks.intern((_NEW_FRAME,))
        # It may have been watched as one without Python before it took its first step there.
        native = self._watched.get(native_id)
        spent = cpu - (native.cpu_ns if native is not None else 0)
        watched = _Watched(ident, native_id, name, cpu, since, stack)
        self._watched[native_id] = self._by_ident[ident] = watched
        if moved is None:
            return 0
        moved.append((watched, spent))
        return spent

    def _find_natives(self, now: int) -> None:
        if self._natives_listed_ns and now - self._natives_listed_ns < _NATIVE_LIST_NS:
            return
        self._natives_listed_ns = now
        own = threading.get_native_id()
        for native_id in native_thread_ids():
            if native_id not in self._watched and native_id != own:
                cpu = self._clocks.cpu_ns(native_id)
                if cpu is not None:
                    stack = self._stacks.intern((_NATIVE_FRAME,))
                    name = native_thread_name(native_id)
                    self._watched[native_id] = _Watched(None, native_id, name, cpu, now, stack)

    def _bury(self, watched: _Watched, samples: list[Sample]) -> None:
        if watched.ident is not None:
            self._close_wait(watched, self._last_ns, samples)
            self._give_up(watched, watched.stack, self._last_ns, samples)
            if self._by_ident.get(watched.ident) is watched:
                del self._by_ident[watched.ident]
        self._watched.pop(watched.native_id, None)
        self._states.forget(watched.native_id)

    # -- listeners ----------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        """Hands out all that is pending, so that a capture beginning or ending now gets its own part only."""
        self._observe(everything=True)
        samples: list[Sample] = []
        now = self._last_ns
        for watched in self._watched.values():
            if watched.ident is not None:
                self._close_wait(watched, now, samples)
                self._give_up(watched, self._stacks.common_part(watched.stack, watched.stack), now, samples)
        own = self._own.total_ns()
        thread = Thread(threading.current_thread().name, threading.get_native_id())
        samples.append(Sample(now, thread, self._own_stack, own - self._own_given_ns, 0))
        self._own_given_ns = own
        self._deliver(samples)

    def _deliver(self, samples: list[Sample]) -> None:
        if samples:
            for listener in self._listeners:
                listener.receive(samples)
