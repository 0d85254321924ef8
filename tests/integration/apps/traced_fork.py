"""A program with periodic traces that forks in the middle of a window; it says what each process has done."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from time import monotonic_ns

from profiling_middleware import Profiler

bursts: list[tuple[int, int]] = []


async def work(seconds: float) -> None:
    """Bursts that are long enough to be told of."""
    end = monotonic_ns() + int(seconds * 1e9)
    while monotonic_ns() < end:
        await asyncio.sleep(0.05)
        began = monotonic_ns()
        while monotonic_ns() < began + 5_000_000:
            pass
        bursts.append((began, monotonic_ns()))


def main() -> None:
    with Profiler():
        asyncio.run(work(1.6))
        child = os.fork()
        if child == 0:
            bursts.clear()
        asyncio.run(work(2.0))
        os.write(
            1, json.dumps({"pid": os.getpid(), "tid": threading.get_native_id(), "bursts": bursts}).encode() + b"\n"
        )
    if child != 0:
        sys.exit(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main()
