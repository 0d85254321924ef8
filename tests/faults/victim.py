"""A process that is profiled and may be killed at any moment. What takes no time may take some here.

    python victim.py SEED       no seed: calm, everything takes the time it takes

Its settings are its environment's. It says `started` and works until its standard input ends.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

from profiling_middleware import Profiler, uploads

SLOW_SECONDS, SLOW_SHARE = 0.1, 0.2


def slow_down(module: Any, name: str, chance: random.Random) -> None:
    """Now and then whatever calls it takes a while, so that many a kill comes just then."""
    original: Callable[..., Any] = getattr(module, name)

    def slow(*arguments: Any, **options: Any) -> Any:
        if chance.random() < SLOW_SHARE:
            time.sleep(chance.uniform(0, SLOW_SECONDS))
        return original(*arguments, **options)

    setattr(module, name, slow)


def main() -> None:
    if len(sys.argv) > 1:
        chance = random.Random(int(sys.argv[1]))
        for module, name in ((os, "fsync"), (os, "rename"), (os, "unlink"), (os, "write"), (zlib, "compressobj")):
            slow_down(module, name, chance)
    uploads._FIRST_RETRY_SECONDS, uploads._LAST_RETRY_SECONDS = 0.1, 0.5  # type: ignore[attr-defined]
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    with Profiler():
        print("started", flush=True)
        while not over.is_set():
            sum(range(20_000))
            time.sleep(0.001)


if __name__ == "__main__":
    main()
