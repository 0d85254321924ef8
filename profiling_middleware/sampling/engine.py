"""What every sampling engine offers: one engine a process, any number of listeners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from profiling_middleware.model import Contention, Sample

DEFAULT_BLOCK_RATE_NS, DEFAULT_MUTEX_FRACTION = 10_000, 1
"""Waits of 10 µs and more are recorded one by one, shorter ones in part; of releases all."""


class Listener(Protocol):
    """A capture that wants to hear what the engine sees."""

    @property
    def wait_looks(self) -> float:
        """How many looks a second it needs at threads that do not run; 0 when it hears of work only."""

    @property
    def hears_work(self) -> bool:
        """Whether it wants to know where CPU time went."""

    @property
    def hears_waits(self) -> bool:
        """Whether it wants to know why threads wait, and of waits for locks by themselves."""

    @property
    def wait_moments_ns(self) -> int:
        """Waits for locks of at least so many ns are told one by one with their time; 0 when it does not want that."""

    def receive(self, samples: Sequence[Sample]) -> None:
        """Takes what was seen since the last call. Runs on the timer's thread: it may add up, not encode."""

    def receive_contentions(self, contentions: Sequence[Contention]) -> None:
        """Likewise, if it hears waits."""

    def receive_lock_waits(self, waits: Sequence[Contention]) -> None:
        """Likewise, if it wants their moments: those that have ended since, in that order.

        One that began before the listener came is told whole, and none that goes on when it leaves.
        """


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What the engine has done since the process started; two of them make the report of a capture."""

    looks: int = 0
    cpu_ns: int = 0
    """CPU time of the profiler's own sampling."""
    lost_stacks: int = 0
    """Stacks that changed while they were read and are left out; their time is charged at the next look."""
    not_placed_ns: int = 0
    """CPU time whose function was not seen; it stands under frames named in angle brackets."""
    table_clears: int = 0
    """How often the table of known stacks was full and began anew."""

    def since(self, earlier: EngineReport) -> EngineReport:
        return EngineReport(
            self.looks - earlier.looks,
            self.cpu_ns - earlier.cpu_ns,
            self.lost_stacks - earlier.lost_stacks,
            self.not_placed_ns - earlier.not_placed_ns,
            self.table_clears - earlier.table_clears,
        )


class Engine(Protocol):
    """Takes stacks while somebody listens. All calls come from the timer's thread."""

    @property
    def name(self) -> str:
        """As in PROFILE_ENGINE: native, polling or python."""

    @property
    def limits(self) -> tuple[str, ...]:
        """What this engine cannot know on this machine, in sentences for the profile's comments."""

    @property
    def rate(self) -> int:
        """Looks a second that were asked for."""

    @property
    def rate_used(self) -> float:
        """Looks a second that are taken now, where more would cost too much."""

    def attach(self, listener: Listener) -> None:
        """From now on `listener` receives what happens, and nothing from before."""

    def detach(self, listener: Listener) -> None:
        """Hands `listener` everything up to now, then nothing more."""

    def flush(self) -> None:
        """Hands all listeners everything up to now."""

    def set_wait_rates(self, block_rate_ns: int, mutex_fraction: int) -> None:
        """From now on waits for locks shorter than `block_rate_ns` are recorded with a probability in proportion.

        Of releases that ended waits one in `mutex_fraction` is. What is recorded counts for the rest; 0 records none.
        """

    def look(self) -> float:
        """Looks once, tells the listeners, and returns the seconds until the next look is due."""

    def report(self) -> EngineReport:
        """What was done so far."""

    def pause(self) -> None:
        """Before a fork: ends a thread of the engine's own, if it has one. From any thread."""

    def resume(self) -> None:
        """After a fork, in the parent: goes on. From any thread."""

    def close(self) -> None:
        """Lets go of everything; the engine is not used again. In a forked child it is the parent's that is closed."""
