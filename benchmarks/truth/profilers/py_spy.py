"""py-spy, as a process beside the one it watches."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.truth.profilers.base import Profiler, Seen, command
from sample_app.pprof_reader import Frame

_FILE, _RATE_FILE, _LOG = "py-spy.raw", "py-spy.rate", "py-spy.log"
_BEGIN_SECONDS = 20.0
_FRAME = re.compile(r"(?P<function>.*) \((?P<file>.*?)(?::(?P<line>\d+))?\)")


@contextmanager
def _recording(directory: Path, rate: int, seconds: float) -> Iterator[None]:
    # From outside it knows no CPU times: what it counts are looks at threads that do not seem idle.
    Path(directory, _RATE_FILE).write_text(str(rate))
    options = ("--format", "raw", "--full-filenames", "--rate", str(rate), "--pid", str(os.getpid()))
    with Path(directory, _LOG).open("w") as log:
        spy = subprocess.Popen(
            [command("py-spy") or "py-spy", "record", *options, "--output", str(directory / _FILE)],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        # What the program is pinned to does not concern it.
        os.sched_setaffinity(spy.pid, range(os.cpu_count() or 1))
        try:
            _wait_until_it_samples(spy, directory / _LOG)
            yield
        finally:
            spy.send_signal(signal.SIGINT)
            spy.wait(60)


def _wait_until_it_samples(spy: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + _BEGIN_SECONDS
    while "Sampling process" not in log.read_text():
        if spy.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"py-spy did not begin: {log.read_text()}")
        time.sleep(0.02)


def _read(directory: Path) -> list[Seen]:
    rate = int(Path(directory, _RATE_FILE).read_text())
    found = []
    for line in Path(directory, _FILE).read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = tuple(_frame(text) for text in reversed(stack.split(";")))
        found.append(Seen(frames, int(count) * 1e9 / rate, int(count)))
    return found


def _frame(text: str) -> Frame:
    match = _FRAME.fullmatch(text)
    if match is None:
        return Frame(text, "", 0)
    return Frame(match["function"], match["file"], int(match["line"] or 0))


PY_SPY = Profiler(
    name="py-spy",
    missing=lambda: None if command("py-spy") else "there is no command py-spy",
    recording=_recording,
    read=_read,
    own=(),
)
