"""A process in which window follows window, faster than settings allow, while the store comes and goes.

    python marathon.py WINDOWS

Prints a line of JSON after every tenth window: windows, resident bytes, threads, descriptors, files in the spool's and
the temporary directory.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from profiling_middleware import Profiler, Settings, uploads

WINDOW_SECONDS = 0.1
MOST_WAITING = 100
_PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    windows = int(sys.argv[1])
    uploads._FIRST_RETRY_SECONDS, uploads._LAST_RETRY_SECONDS = 0.05, 0.2  # type: ignore[attr-defined]
    settings = Settings.from_env()
    over = threading.Event()
    workers = [threading.Thread(target=work, args=(over, number), daemon=True) for number in range(3)]
    for worker in workers:
        worker.start()
    with Profiler(settings) as profiler:
        for number in range(windows):
            take_window(profiler, settings.types)
            wait_until_few_wait(profiler, MOST_WAITING)
            if number % 10 == 9:
                print(json.dumps(state(profiler, settings, number + 1)), flush=True)
        wait_until_few_wait(profiler, 0)
        print(json.dumps({"status": uploads_of(profiler)}), flush=True)
        over.set()


def take_window(profiler: Profiler, kinds: tuple[str, ...]) -> None:
    """A periodic window, as the schedule opens one."""
    recorder = profiler._parts.recorder
    timeline = profiler._parts.timer.timeline
    begun = threading.Event()
    recordings = []

    def begin() -> None:
        recordings.extend(recorder.window(kinds, timeline.now() + WINDOW_SECONDS))
        begun.set()

    recorder.call_soon(begin)
    begun.wait()
    for recording in recordings:
        recording.result.result(30)


def wait_until_few_wait(profiler: Profiler, count: int) -> None:
    """So that what is measured is not the number of captures that wait."""
    while profiler.status.waiting.captures > count:
        time.sleep(0.02)


def work(over: threading.Event, number: int) -> None:
    lock = threading.Lock()
    while not over.is_set():
        with lock:
            sum(range(5_000 * (number + 1)))
        time.sleep(0.002)


def uploads_of(profiler: Profiler) -> dict[str, object]:
    status = profiler.status
    counts = status.uploads
    return {
        "taken": counts.taken,
        "stored": counts.stored,
        "dropped": counts.dropped,
        "failures": counts.failures,
        "waiting": status.waiting.captures,
        "failed": status.failed_captures,
    }


def state(profiler: Profiler, settings: Settings, windows: int) -> dict[str, object]:
    gc.collect()
    assert settings.spool_dir is not None
    captures = (".waiting", ".going")
    return {
        "windows": windows,
        "rss": int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE,
        "threads": threading.active_count(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "files": sum(1 for path in settings.spool_dir.rglob("*.*") if path.suffix not in captures),
        "temporary": len(list(Path(tempfile.gettempdir()).iterdir())),
        "waiting": profiler.status.waiting.captures,
    }


if __name__ == "__main__":
    main()
