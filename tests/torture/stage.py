"""What every work is given: when to stop, its own chance, where to put files, and where to say what went wrong."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from random import Random

_REMEMBERED = 3_000  # threads: more than live or wait to be reported

Work = Callable[["Stage"], None]


class Stage:
    """Shared by all works of one run."""

    def __init__(self, *, seed: int, directory: Path, engine: str) -> None:
        self.seed = seed
        self.directory = directory
        self.engine = engine
        self.stopped = threading.Event()
        self.done: Counter[str] = Counter()
        """What was done how often. Added to without a lock: a figure for people."""
        self.failures: list[str] = []
        self._forks = threading.Lock()
        self.native_ids: dict[str, int] = {}
        """Of each thread that was started here, by its name: no two have the same one."""

    def random(self, name: str) -> Random:
        """A chance of one's own: the same seed does the same, whatever the other threads do."""
        return Random(f"{self.seed} {name}")

    def fail(self, text: str) -> None:
        """Notes what should not have happened; the run goes on and ends with a failure."""
        self.failures.append(text)

    def wait(self, seconds: float) -> bool:
        """Waits; True when the run is over."""
        return self.stopped.wait(seconds)

    def forking(self) -> AbstractContextManager[object]:
        """While a child is made, and while what a fork of CPython's own does not survive is there."""
        return self._forks

    def ending_threads(self) -> AbstractContextManager[object]:
        """Around threads that end: in 3.11 a child that is made meanwhile may wait for a lock that nobody opens."""
        return self._forks if sys.version_info < (3, 12) else nullcontext()

    def breathe(self, random: Random) -> None:
        """Lets others run: with the GIL always wanted the captures would hardly get on."""
        time.sleep(random.random() / 200)

    def start(self, work: Work, *, number: int) -> threading.Thread:
        """A thread named after `work`, which the checker finds at the bottom of its stack."""
        name = f"{work.__name__}-{number}"
        while len(self.native_ids) > _REMEMBERED:
            # Without a lock, which a forked child would have for ever: several threads do this at once.
            with suppress(RuntimeError, KeyError):
                self.native_ids.pop(next(iter(self.native_ids)))

        def run() -> None:  # called by the library
            self.native_ids[name] = threading.get_native_id()
            work(self)  # called by run

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread


def ended(threads: list[threading.Thread], seconds: float) -> list[str]:
    """The names of those that have not ended after `seconds`."""
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return [thread.name for thread in threads if thread.is_alive()]
