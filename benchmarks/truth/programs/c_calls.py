"""Calls of C functions, one a line: some hold the GIL (json, re, sorted), some let go of it (zlib, hashlib)."""

from __future__ import annotations

import hashlib
import json
import random
import re
import zlib
from collections.abc import Sequence

from benchmarks.truth.clock import Clock
from benchmarks.truth.stage import Actor, Part, size_per_ms

_ROWS = [{"order": number, "name": f"c{number % 97}", "cents": number * 7} for number in range(20_000)]
_TEXT = " ".join(f"{number * 7919 % 10_007:x}" for number in range(200_000))
_PATTERN = re.compile(r"\b[a-f]+\d+\b")
_NUMBERS = [random.Random(0).random() for _ in range(1)]
_DATA = memoryview(random.Random(1).randbytes(1 << 16) * 512)
"""32 MiB, of which zlib finds only what lies near."""


def prepare() -> Sequence[Actor]:
    """One actor; finds out first how much of each takes how long."""
    generator = random.Random(2)
    _NUMBERS[:] = [generator.random() for _ in range(200_000)]
    wanted: tuple[tuple[Part, float, int], ...] = (
        (encode, 3.0, 500),
        (match, 2.0, 10_000),
        (order, 3.0, 5_000),
        (compress, 4.0, 50_000),
        (digest, 2.0, 500_000),
    )
    work = [(part, ms * size_per_ms(part, probe)) for part, ms, probe in wanted]
    return (lambda clock: _act(clock, work),)


def _act(clock: Clock, work: list[tuple[Part, float]]) -> None:
    while clock.running():
        clock.random.shuffle(work)
        for part, size in work:
            part(clock, int(clock.varied(size)))


def encode(clock: Clock, size: int) -> None:
    clock.start()
    json.dumps(_ROWS[:size])
    clock.lap("json")


def match(clock: Clock, size: int) -> None:
    clock.start()
    _PATTERN.findall(_TEXT[:size])
    clock.lap("re")


def order(clock: Clock, size: int) -> None:
    clock.start()
    sorted(_NUMBERS[:size])
    clock.lap("sorted")


def compress(clock: Clock, size: int) -> None:
    clock.start()
    zlib.compress(_DATA[:size])
    clock.lap("zlib")


def digest(clock: Clock, size: int) -> None:
    clock.start()
    hashlib.sha256(_DATA[:size])
    clock.lap("hashlib")
