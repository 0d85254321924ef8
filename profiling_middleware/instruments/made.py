"""The instruments of a process: asyncio's are loaded when the service has loaded asyncio."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from profiling_middleware.failures import Failures
from profiling_middleware.instruments import Instrument, WaitListener
from profiling_middleware.process import THIS_PROCESS

if TYPE_CHECKING:
    from profiling_middleware.instruments.chains import ChainReader

_LOOK_SECONDS = 0.5


def make_instruments(
    failures: Failures | None = None, make_chain_reader: Callable[[], ChainReader | None] = lambda: None
) -> tuple[Instrument, ...]:
    """New ones, at rest. `failures` is told what fails in the service's own threads.

    `make_chain_reader` is asked, when they are needed first, for what both can do with and without.
    """
    return _OfAsyncio("locks", failures, make_chain_reader), _OfAsyncio("tasks", failures, make_chain_reader)


class _OfAsyncio:
    """See `Instrument`."""

    def __init__(
        self, what: str, failures: Failures | None, make_chain_reader: Callable[[], ChainReader | None]
    ) -> None:
        self._what, self._failures, self._make_chain_reader = what, failures, make_chain_reader
        self._made: Instrument | None = None
        self._listeners: list[WaitListener] = []
        self._rates = (1, 1)

    @property
    def limits(self) -> tuple[str, ...]:
        return self._made.limits if self._made is not None else ()

    def attach(self, listener: WaitListener) -> None:
        # Looks at tasks are for sums: a trace hears of them otherwise.
        if self._what == "tasks" and not listener.hears_waits:
            return
        self._listeners.append(listener)
        if self._made is not None:
            self._made.attach(listener)
        else:
            self._make()

    def detach(self, listener: WaitListener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
            if self._made is not None:
                self._made.detach(listener)

    def flush(self) -> None:
        if self._made is not None:
            self._made.flush()

    def look(self) -> float | None:
        if not self._listeners:
            return None
        if self._made is None:
            self._make()
        return _LOOK_SECONDS if self._made is None else self._made.look()

    def set_wait_rates(self, block_rate_ns: int, mutex_fraction: int) -> None:
        self._rates = block_rate_ns, mutex_fraction
        if self._made is not None:
            self._made.set_wait_rates(*self._rates)

    def close(self) -> None:
        self._listeners.clear()
        if self._made is not None:
            self._made.close()

    def _make(self) -> None:
        # A service without asyncio is not made to load it.
        if "asyncio.tasks" not in sys.modules or not self._listeners:
            return
        with THIS_PROCESS.imports.underway():
            from profiling_middleware.instruments.asyncio_locks import AsyncioLocks
            from profiling_middleware.instruments.asyncio_tasks import AsyncioTasks
        reader = self._make_chain_reader()
        if self._what == "locks":
            self._made = AsyncioLocks(failures=self._failures, reader=reader)
        else:
            self._made = AsyncioTasks(measuring=AsyncioLocks.MEASURING, reader=reader)
        self._made.set_wait_rates(*self._rates)
        for listener in self._listeners:
            self._made.attach(listener)
