"""The C extension's functions; `sampling/native.py` is their only caller. Times in nanoseconds."""

from asyncio import Future, Task
from collections.abc import Callable
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import Any, TypeVar, final

from profiling_middleware.labels import Labels, Resolve

_Kept = TypeVar("_Kept")

@final
class Label:
    """Whom the work of a context is done for; set as the value of the watched ContextVar."""

    def __new__(cls, resolve: Resolve, subject: Any, /) -> Label: ...
    def labels(self) -> Labels | None:
        """What `resolve` says of the subject now."""

def install() -> bool:
    """Takes SIGPROF. False when somebody else has it."""

def uninstall() -> None:
    """Gives SIGPROF back. All timers must have been deleted: `set_period(0)`."""

def owns_signal() -> bool:
    """Whether SIGPROF is still ours."""

def could_install() -> bool:
    """Whether nobody has SIGPROF, or we do."""

def discover(own_native_id: int, /) -> bool:
    """Finds threads that have come since; the one named is the profiler's own and never sampled.

    False when there may be one that is not ready to be observed: the thread that looks goes on trying.
    """

def note_natives(cpu_times: dict[int, int], /) -> None:
    """CPU time of each thread without Python by its native id: it is not that of a window in which one comes to Python.

    Replaces what was noted before.
    """

def set_period(period: int, /) -> int:
    """Gives every thread a timer that takes a sample after each `period` of its CPU time, 0 ends all of them.

    Returns how many threads could not have one.
    """

def look(interval: int, charges_cpu: bool, asks_why: bool, has_signal: bool, /) -> None:
    """Starts, or changes, the thread that looks at all others every `interval` (0: it only finds new threads).

    With `charges_cpu` it charges CPU time to what it sees running, with `asks_why` it finds out why others wait.
    `has_signal`: SIGPROF is ours. Raises OSError.
    """

def stop_looking() -> None:
    """Ends that thread."""

def pause_looking() -> None:
    """Ends that thread for a fork, which would warn of it."""

def resume_looking() -> None:
    """Starts it again if it was paused."""

def looker_id() -> int:
    """The native id of that thread; 0 when it has never run."""

def forget_ended() -> None:
    """Lets go of threads that have ended."""

def settle() -> tuple[list[tuple[int, int, int, bool]], int]:
    """Settles all accounts. What each thread has waited since is in the next `drain()`.

    Returns for each thread its key, its native id, its CPU time that no sample has, and whether it is the profiler's
    own; then the CPU time of all threads since the last settling.
    """

def new_threads() -> list[tuple[int, int, int]]:
    """Key, ident and native id of each thread that has come since the last call."""

def ended_threads() -> list[int]:
    """The keys of threads that have been let go of since the last call."""

def enlist() -> int:
    """Puts the calling thread under observation at once, and returns its native id as threading.get_native_id does."""

def drain() -> tuple[
    list[Any],
    list[tuple[int, ...]],
    list[tuple[str | int, str | None, int, int]],
    bool,
    list[Any],
    list[tuple[int, int, int, int, int, Resolve | None, Any]],
]:
    """What happened since the last call: samples, new stacks, new frames, whether all numbers begin anew; contentions;
    waits for locks one by one, as they ended, if that was asked for.

    Samples are in one list, the fields of one behind those of the other, and contentions in another: a tuple for
    each would wake the garbage collector. A sample: time, the thread's key, its stack's number (-1: none), CPU
    time, time waited at the stack that was looked at before, time waited at this one since, how much of both was
    for locks, why (`model.Reason`), and the parts of its label or None. A stack: the numbers of its frames, leaf
    first. A frame: qualified name, file, line, first line; for a special frame its number and None. A contention:
    whether it is a release, the thread's key, its stack, a waiter's (-1: none), how many, their delay, the parts of
    its label or None. A wait: the thread's key, its stack, the key of the thread whose release ended it (0: not
    known), when it ended on the monotonic clock, how long it was, the parts of its label or None. If all numbers
    begin anew, those of contentions and waits are still the old ones.
    """

def clear() -> None:
    """Forgets all threads, what has not been drained, and all numbers given so far."""

def counts() -> tuple[int, int, int, int, int, int, int, int]:
    """See `sampling.native.Counts`."""

def observe_locks() -> bool:
    """Begins to measure waits for all locks there are. False when the locks of this interpreter are not understood."""

def leave_locks() -> None:
    """Ends that."""

def set_contention_rates(block_rate: int, mutex_fraction: int, /) -> None:
    """See `sampling.engine.Engine.set_wait_rates`."""

def set_wait_moments(least: int, /) -> None:
    """From now on `drain()` also tells each observed wait of at least so many nanoseconds by itself; 0: none."""

def contention_totals() -> tuple[int, int, int, int, int]:
    """Waits and releases recorded, those for which there was no room, and time that recording them took.

    Then waits that could not be told by themselves, because there was no room either.
    """

def observe_steps(
    stepped: Callable[[Task[Any], Future[Any] | None, int, int], object] | None,
    threshold: int,
    created: Callable[[Task[Any]], object] | None,
    resolved: Callable[[Future[Any]], object] | None,
    /,
) -> bool:
    """Begins to tell of the steps of all of asyncio's tasks there are, or goes on telling these.

    Each is called in the thread that does what it is told, with the context of whoever does it.
    `stepped`: a task has just taken a step of at least `threshold`; what woke it (None: it began, or had not waited),
    and when it began and ended on the monotonic clock. `created`: a task has been made, and may have taken its first
    step already if it is eager (that one is not told). `resolved`: a step is about to set a future's result or
    exception, which may still be refused.
    Raising does them no harm: it is counted, and only KeyboardInterrupt and SystemExit, which come from a signal's
    handler, go on to the program. What they do themselves is not told.
    False when asyncio's C code is not loaded or not understood. To find that out takes a step of a task that no loop
    knows of, and `sampling.specimens`, which is imported if it has not been.
    """

def leave_steps() -> None:
    """Ends that, also for steps that are under way."""

def step_failures() -> int:
    """How often what `observe_steps` was given has raised since the process started."""

def suspended(step: object, /) -> tuple[int, ...] | None:
    """Where a coroutine waits: the id of its code and its instruction, those of what it awaits before its own.

    The same as `f_code` and `f_lasti` of its frames, without making objects of these. None where something in between
    is neither a coroutine nor a generator of Python's own, for a chain that is very long, and for what does not wait.
    """

def running(leaf: FrameType, of_task: bool, /) -> tuple[int, ...] | None:
    """Likewise of the calling thread, `leaf` first, a frame of it that runs.

    With `of_task` as far as coroutines and generators call each other: where its task would wait if it did now.
    """

def untrack(object: _Kept, /) -> _Kept:
    """Leaves it out of garbage collections from now on, and tuples in it; returns it.

    Only for what is never part of a cycle.
    """

def watch(variable: ContextVar[object], /) -> None:
    """From now on samples carry the label that this variable has in the running context."""

def own_stack() -> list[tuple[CodeType | int, int]] | None:
    """The caller's code objects and lines, leaf first, as its signal handler would see them."""

def own_stack_from_outside() -> list[tuple[CodeType | int, int]] | None:
    """The same, as another thread would see them."""

def own_label() -> object:
    """The subject of the caller's label, if it is seen alike from inside and outside, else None."""

def task_ids() -> list[int]:
    """The native ids of all threads of the process; empty where the system does not tell."""

def task_name(native_id: int) -> str:
    """The name that the system shows for a thread (15 bytes at most); empty when it has ended."""
