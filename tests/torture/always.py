"""Copied as `sitecustomize.py`: every process of CPython's tests that reads it captures all kinds all the time."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profiling_middleware.recording import Recording

_SECONDS = 0.5


def _begin() -> None:
    from profiling_middleware.config import Settings
    from profiling_middleware.profiler import Profiler
    from profiling_middleware.sampling import make_engine

    settings = Settings(engine=os.environ["TORTURE_ENGINE"], sample_rate=1000, max_overhead=1.0)  # type: ignore[arg-type]
    # What it imports, now: a named tuple made on another thread makes CPython forget that it is dying of SIGINT.
    make_engine(settings)
    profiler = Profiler(settings)
    own = os.getpid()

    def capture(kind: str) -> Recording:
        recording = profiler.record(kind, _SECONDS, upload=False)

        def ended(result: object) -> None:
            with open(os.environ["TORTURE_NOTE"], "a", encoding="ascii") as note:
                note.write(f"{kind}\n")
            if os.getpid() == own and not sys.is_finalizing() and threading.main_thread().is_alive():
                capture(kind)

        recording.result.add_done_callback(ended)
        return recording

    begun = [capture(kind) for kind in ("cpu", "wall", "block", "mutex")]
    # A test of which descriptors are open may not meet those of the imports.
    while any(recording.end_call is None and not recording.result.done() for recording in begun):
        time.sleep(0.001)


if not sys.flags.isolated and "TORTURE_ENGINE" in os.environ:
    _begin()
