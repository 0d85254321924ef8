"""Threads of different share: one works all the time, one half, one a quarter of it, six are asleep."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from benchmarks.truth.clock import Clock
from benchmarks.truth.stage import Actor, Part, size_per_ms

_BURST_MS = 25.0
"""Long beside a sampler's period: how short bursts are told from sleep is another program's matter."""
_ASLEEP_SECONDS = 0.3
_DATA = memoryview(bytes(range(256)) * (1 << 19))
_PROBE = 20_000


def prepare() -> Sequence[Actor]:
    """Nine actors."""
    held = threading.Lock()
    held.acquire()
    ends = [socket.socketpair() for _ in range(2)]
    return (
        _worker(always, 0.0, _PROBE),
        _worker(half, 1.0, _PROBE),
        _worker(quarter, 3.0, 1_000_000),
        *(lambda clock: _repeat(clock, lambda: wait_for_lock(clock, held)) for _ in range(2)),
        *(lambda clock, pair=pair: _repeat(clock, lambda: wait_for_socket(clock, pair[0])) for pair in ends),
        *(lambda clock: _repeat(clock, lambda: wait_asleep(clock)) for _ in range(2)),
    )


def _worker(part: Part, rest: float, probe: int) -> Actor:
    """Rests `rest` times as long as it works."""
    size = _BURST_MS * size_per_ms(part, probe)

    def act(clock: Clock) -> None:
        while clock.running():
            part(clock, int(clock.varied(size)))
            if rest:
                time.sleep(clock.varied(rest * _BURST_MS / 1000))

    return act


def _repeat(clock: Clock, wait: Callable[[], None]) -> None:
    while clock.running():
        wait()


def always(clock: Clock, size: int) -> None:
    clock.start()
    found = 0
    for number in range(size):
        found ^= number * 3
    clock.lap("works always")


def half(clock: Clock, size: int) -> None:
    clock.start()
    found = 0
    for number in range(size):
        found += number % 7
    clock.lap("works half the time")


def quarter(clock: Clock, size: int) -> None:
    clock.start()
    hashlib.sha256(_DATA[:size])
    clock.lap("works a quarter of the time, without the GIL")


def wait_for_lock(clock: Clock, held: threading.Lock) -> None:
    clock.start()
    held.acquire(timeout=clock.varied(_ASLEEP_SECONDS))
    clock.lap("waits for a lock")


def wait_for_socket(clock: Clock, end: socket.socket) -> None:
    clock.start()
    end.settimeout(clock.varied(_ASLEEP_SECONDS))
    with suppress(TimeoutError):
        end.recv(1)
    clock.lap("waits for a socket")


def wait_asleep(clock: Clock) -> None:
    clock.start()
    time.sleep(clock.varied(_ASLEEP_SECONDS))
    clock.lap("sleeps")
