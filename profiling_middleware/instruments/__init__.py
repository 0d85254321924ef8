"""What tells of waits besides the sampling engine: asyncio's locks, its tasks, and loops that are kept from serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from profiling_middleware.model import Contention


class WaitListener(Protocol):
    """Whoever sums waits."""

    @property
    def wait_looks(self) -> float:
        """As `sampling.engine.Listener.wait_looks`: how much there is to be seen of what is not measured."""

    @property
    def hears_waits(self) -> bool:
        """Likewise: whether it wants sums of all waits, or only what is told with its moment."""

    def receive_contentions(self, contentions: Sequence[Contention]) -> None:
        """Takes what was waited for since the last call. Runs on the timer's thread."""


class Instrument(Protocol):
    """Measures while somebody listens. All calls come from the timer's thread."""

    @property
    def limits(self) -> tuple[str, ...]:
        """What it has not measured, in sentences for the profile's comments."""

    def attach(self, listener: WaitListener) -> None:
        """From now on `listener` receives what happens, and nothing from before."""

    def detach(self, listener: WaitListener) -> None:
        """Hands `listener` everything up to now, then nothing more."""

    def flush(self) -> None:
        """Hands all listeners everything up to now."""

    def look(self) -> float | None:
        """Does what has its time; returns the seconds until the next time, None for not before somebody listens."""

    def set_wait_rates(self, block_rate_ns: int, mutex_fraction: int) -> None:
        """As `sampling.engine.Engine.set_wait_rates`."""

    def close(self) -> None:
        """Lets go of everything, patches too; in a forked child, too."""
