"""The native engine: CPU time from timers on the threads' own CPU clocks, waits from a look without the GIL.

`_native.c` takes the stacks; here they get their names and become samples, and what it costs is kept within its bound.
Where SIGPROF is not to be had the same code polls: a thread without the GIL looks at whoever has run.
"""

from __future__ import annotations

import _thread
import threading
import time
from typing import NamedTuple

from profiling_middleware.labels import CURRENT, Labels, Resolve
from profiling_middleware.model import Frame, Sample, Stack, Thread
from profiling_middleware.sampling import _native
from profiling_middleware.sampling.clocks import OwnCpu
from profiling_middleware.sampling.engine import EngineReport, Listener
from profiling_middleware.sampling.governor import Governor
from profiling_middleware.sampling.names import ModuleNames, thread_name
from profiling_middleware.sampling.natives import NativeThreads
from profiling_middleware.sampling.stacks import TRUNCATED

# What handlers have noted is fetched so often that the ring, of a thousand stacks and more, is never full. Each time
# the GIL has to be waited for, which costs more than all else here.
_DRAIN_SECONDS, _LEAST_DRAIN_SECONDS, _DRAIN_SECONDS_AT_REST = 1.0, 0.1, 2.0
_SAMPLES_A_DRAIN = 400
# Waits are looked at less often than work: who waits does not run away.
_WAIT_LOOKS_A_SECOND = 20
_FORGET_SECONDS = 1.0
_SLACK_NS = 200_000
_MOST_ENDED_PLACES = 1_000
# A request that no router has taken by then is one that none takes.
_LABEL_WAIT_NS = 2_000_000_000

_NO_STACK = -1
_SPECIAL = {
    1: TRUNCATED,
    2: Frame("<thread without Python>", "", 0, 0),
    3: Frame("<another interpreter>", "", 0, 0),
    4: Frame("<not seen yet>", "", 0, 0),
}


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


_Work = tuple[Resolve, object]
_Place = tuple[Stack, _Work | None]
_Unlabelled = tuple[Sample, _Work | None]


def _stack(text: str) -> Stack:
    return Stack((Frame(text, "", 0, 0),))


def _labels_of(work: _Work | None) -> Labels:
    """Those that are known by now."""
    return (work[0](work[1]) if work is not None else None) or ()


class NativeEngine:
    """Samples without the GIL. See `sampling.engine.Engine` for the methods; there is one at a time in a process."""

    def __init__(self, *, rate: int, max_overhead: float, signals: bool) -> None:
        """With `signals` CPU time comes from SIGPROF while nobody else has it, else from polling."""
        self.rate = rate
        self._wants_signals = self._has_signal = signals
        self._listeners: list[Listener] = []
        self._governor = Governor(max_overhead)
        self._modules = ModuleNames()
        self._natives = NativeThreads()
        self._own = OwnCpu()
        self._frames: list[Frame] = []
        self._stacks: list[Stack] = []
        self._threads: dict[int, Thread] = {}
        self._at: dict[int, _Place] = {}
        """Where each thread was seen last, and in whose work."""
        self._worked_at: dict[int, _Place] = {}
        self._ended_at: dict[tuple[Stack, Labels], int] = {}
        """How many threads have ended after they worked there last."""
        self._waiting: list[_Unlabelled] = []
        self._own_id = self._unarmed = 0
        self._not_placed_ns = 0
        self._forgot = 0.0
        self._process_ns = self._own_given_ns = self._looker_ns = 0
        self._own_stack = _stack("<profiling_middleware sampling>")
        self._ended_stack = _stack("<thread ended between two looks>")
        self._native_stack = Stack((_SPECIAL[2],))
        self._unsampled_stack = _stack("<not sampled>")
        self._unread_stack = _stack("<stack changed while it was read>")
        self._ended = Thread("ended threads", 0)

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
        return tuple(limits)

    def attach(self, listener: Listener) -> None:
        if self._listeners:
            self._cut()
        else:
            self._begin()
        self._listeners.append(listener)
        self._adjust()

    def detach(self, listener: Listener) -> None:
        if listener not in self._listeners:
            return
        self._cut()
        self._listeners.remove(listener)
        if self._listeners:
            self._adjust()
        else:
            self.close()

    def look(self) -> float:
        # Who lives now gets a name, also if it could not be enlisted as it began. And this thread is known as our own:
        # a fork may have ended the timer's thread, and another one have taken its place.
        self._find_threads()
        samples = self._drain()
        self._deliver(samples)
        if self._has_signal and not _native.owns_signal():
            self._step_back()
        now = time.monotonic()
        if now - self._forgot > _FORGET_SECONDS:
            self._forgot = now
            _native.forget_ended()
        if self._governor.changes(now, self._cost_ns()):
            self._adjust()
        if not samples:
            return _DRAIN_SECONDS_AT_REST
        return min(_DRAIN_SECONDS, max(_LEAST_DRAIN_SECONDS, _DRAIN_SECONDS * _SAMPLES_A_DRAIN / len(samples)))

    def report(self) -> EngineReport:
        counts = _counts()
        return EngineReport(
            looks=counts.samples + counts.looks,
            cpu_ns=self._cost_ns(),
            lost_stacks=counts.lost + counts.dropped,
            not_placed_ns=self._not_placed_ns,
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
        _native.clear()
        self._listeners.clear()
        self._threads.clear()
        self._at.clear()
        self._worked_at.clear()
        self._ended_at.clear()
        self._waiting.clear()

    # -- beginning, end, and change -----------------------------------------------------------------------------

    def _begin(self) -> None:
        self._has_signal = self._wants_signals and _native.install()
        # Each thread that `threading` starts calls this first of all. Otherwise it would be found some milliseconds
        # later, and a thread that serves one request may have ended by then.
        if threading.get_native_id is _thread.get_native_id:
            threading.get_native_id = _native.enlist
        # The extension is the process's: what it knows it may have told another engine.
        _native.clear()
        self._frames.clear()
        self._stacks.clear()
        _native.watch(CURRENT)
        self._find_threads()
        _native.settle()
        self._governor.begin(time.monotonic(), self._cost_ns())
        self._natives.take(self._known_native_ids(()))
        self._process_ns = time.process_time_ns()
        self._own_given_ns = self._own.total_ns()
        self._looker_ns = _counts().looker_ns

    def _find_threads(self) -> None:
        self._own_id = threading.get_native_id()
        _native.discover(self._own_id)

    def _adjust(self) -> None:
        """Sets the timers and the looks as the listeners and the governor want them."""
        stretch = self._governor.stretch
        waits = any(listener.wants_waits for listener in self._listeners)
        if self._has_signal:
            looks = _WAIT_LOOKS_A_SECOND if waits else 0
            self._unarmed = _native.set_period(int(1e9 * stretch / self.rate))
        else:
            looks = self.rate
        interval = int(1e9 * stretch / looks) if looks else 0
        _native.look(interval, not self._has_signal, self._has_signal)

    def _step_back(self) -> None:
        """Somebody has taken SIGPROF: the timers would call their handler."""
        _native.set_period(0)
        _native.stop_looking()
        _native.uninstall()
        self._has_signal = False
        self._adjust()

    def _cost_ns(self) -> int:
        counts = _counts()
        return self._own.total_ns() + counts.handlers_ns + counts.looker_ns

    # -- samples ------------------------------------------------------------------------------------------------

    def _drain(self, *, final: bool = False) -> list[Sample]:
        ended = _native.ended_threads()  # before, so that all they have left is in what comes now
        raw, stacks, frames, begins_anew = _native.drain()
        if begins_anew:
            self._frames.clear()
            self._stacks.clear()
        self._frames.extend(self._frame(*frame) for frame in frames)
        known = self._frames
        self._stacks.extend(Stack(tuple(known[number] for number in numbers)) for numbers in stacks)
        for key, ident, native_id in _native.new_threads():
            name = thread_name(ident, native_id)
            self._threads[key] = self._ended if name is None else Thread(name, native_id)
        samples: list[_Unlabelled] = []
        for sample in raw:
            self._take(samples, *sample)
        for key in ended:
            self._forget(key)
        return self._labelled(samples, final=final)

    def _take(
        self,
        samples: list[_Unlabelled],
        when: int,
        key: int,
        number: int,
        cpu: int,
        waited: int,
        seen: int,
        resolve: Resolve | None,
        subject: object,
    ) -> None:
        thread = self._threads.get(key, self._ended)
        if waited:
            before, before_work = self._at.get(key, (self._unread_stack, None))
            samples.append((Sample(when - seen, thread, before, 0, waited), before_work))
        if number == _NO_STACK and not cpu and not seen:
            return
        work = (resolve, subject) if resolve is not None else None
        if number == _NO_STACK:
            stack = self._unread_stack
            self._not_placed_ns += cpu
        else:
            stack = self._stacks[number]
        if seen or not cpu:
            # A look at the moment at which the thread was found has seen where it is, and no time of it.
            self._at[key] = stack, work
        if cpu:
            self._worked_at[key] = stack, work
        samples.append((Sample(when, thread, stack, cpu, seen), work))

    def _forget(self, key: int) -> None:
        self._threads.pop(key, None)
        self._at.pop(key, None)
        if key in self._worked_at:
            stack, work = self._worked_at.pop(key)
            place = stack, _labels_of(work)
            if place in self._ended_at or len(self._ended_at) < _MOST_ENDED_PLACES:
                self._ended_at[place] = self._ended_at.get(place, 0) + 1

    def _labelled(self, samples: list[_Unlabelled], *, final: bool) -> list[Sample]:
        """Those whose labels are known; the others wait until they are, or until the `final` time."""
        waiting, self._waiting = self._waiting + samples, []
        now = time.monotonic_ns()
        labelled = []
        for sample, work in waiting:
            labels = work[0](work[1]) if work is not None else ()
            if labels is None and not final and now - sample.time_ns < _LABEL_WAIT_NS:
                self._waiting.append((sample, work))
            else:
                labelled.append(sample._replace(labels=labels) if labels else sample)
        return labelled

    def _frame(self, function: str | int, file: str | None, line: int, start_line: int) -> Frame:
        if file is None or isinstance(function, int):
            return _SPECIAL[int(function)]
        module = self._modules.of(file)
        return Frame(f"{module}.{function}" if module else function, file, line, start_line)

    # -- listeners ----------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        """Hands out all that is pending, so that a capture beginning or ending now gets its own part only."""
        _native.forget_ended()
        rests, settled_ns = _native.settle()
        samples = self._drain(final=True)
        now = time.monotonic_ns()
        for key, _, rest, ours in rests:
            if rest and not ours:
                # Less than one sample is left, and it is as likely where the thread worked last as anywhere.
                stack, work = self._worked_at.get(key, (self._unsampled_stack, None))
                if stack is self._unsampled_stack:
                    self._not_placed_ns += rest
                thread = self._threads.get(key, self._ended)
                samples.append(Sample(now, thread, stack, rest, 0, _labels_of(work)))
        samples += self._without_python(now, settled_ns, {native_id for _, native_id, _, _ in rests})
        self._deliver(samples)

    def _without_python(self, now: int, settled_ns: int, known: set[int]) -> list[Sample]:
        """What threads without Python have used, those that ended unseen, and this engine itself."""
        own, looker = self._own.total_ns(), _counts().looker_ns
        mine = Thread(threading.current_thread().name, threading.get_native_id())
        spent_by_engine = own - self._own_given_ns + looker - self._looker_ns
        samples = [Sample(now, mine, self._own_stack, spent_by_engine, 0)]
        process = time.process_time_ns()
        unseen = process - self._process_ns - settled_ns - (looker - self._looker_ns)
        self._process_ns, self._own_given_ns, self._looker_ns = process, own, looker
        for thread, spent in self._natives.take(self._known_native_ids(known)):
            samples.append(Sample(now, thread, self._native_stack, spent, 0))
            unseen -= spent
        return samples + self._of_the_ended(now, unseen)

    def _of_the_ended(self, now: int, unseen: int) -> list[Sample]:
        """What threads have used after their last sample, or without any.

        The former is less than a period each, and as likely where they worked last as anywhere.
        """
        samples = []
        places, self._ended_at = self._ended_at, {}
        threads = sum(places.values())
        tails = min(unseen, int(threads * 1e9 / self.rate_used)) if unseen > 0 else 0
        for (stack, labels), count in places.items():
            samples.append(Sample(now, self._ended, stack, tails * count // threads, 0, labels))
        if unseen - tails > _SLACK_NS:
            self._not_placed_ns += unseen - tails
            samples.append(Sample(now, self._ended, self._ended_stack, unseen - tails, 0))
        return samples

    def _known_native_ids(self, known: set[int] | tuple[()]) -> set[int]:
        return {*known, *(thread.native_id for thread in self._threads.values()), _native.looker_id()}

    def _deliver(self, samples: list[Sample]) -> None:
        if samples:
            for listener in self._listeners:
                listener.receive(samples)
