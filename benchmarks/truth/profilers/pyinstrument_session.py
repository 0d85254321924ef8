"""pyinstrument: wall time of the one thread that starts it, since it knows no CPU time."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.truth.profilers.base import Profiler, Seen, without_module
from sample_app.pprof_reader import Frame

_FILE = "pyinstrument.json"


@contextmanager
def _recording(directory: Path, rate: int, seconds: float) -> Iterator[None]:
    profiler = importlib.import_module("pyinstrument").Profiler(interval=1 / rate)
    profiler.start()
    yield
    profiler.stop().save(str(directory / _FILE))


def _read(directory: Path) -> list[Seen]:
    records = json.loads(Path(directory, _FILE).read_text())["frame_records"]
    return [Seen(tuple(_frame(text) for text in reversed(stack)), seconds * 1e9, 1) for stack, seconds in records]


def _frame(text: str) -> Frame:
    """From `function NUL file NUL first line`, then attributes, each after a byte 1: `l` is the line."""
    identity, *attributes = text.split("\x01")
    function, file, first = [*identity.split("\x00"), "", ""][:3]
    lines = [attribute[1:] for attribute in attributes if attribute.startswith("l")]
    line = lines[0] if lines else first
    return Frame(function, file, int(line) if line.isdigit() else 0)


PYINSTRUMENT = Profiler(
    name="pyinstrument",
    missing=without_module("pyinstrument"),
    recording=_recording,
    read=_read,
    # The pauses before and after the program are wall time, which no other profiler here counts.
    own=("/pyinstrument/", "settle"),
)
