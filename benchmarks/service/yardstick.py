"""How fast the core is on which a service runs: a piece of work that is always the same, done there again and again.

Cores of shared machines are slower and faster by a tenth from one second to the next, and what a request costs goes
with them. Divided by what the same second's pieces cost it scatters a third as much (standard deviation of the ratio of
neighbouring slices of the sample app: 0.035 instead of 0.105), so that a hundredth can be told with some hundred
slices. It takes 2 % of the core.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

_ROOT = Path(__file__).parents[2]
_PAUSE_SECONDS = 0.02
_READING = struct.Struct("=QQ")


class Reading(NamedTuple):
    """What has been done so far."""

    pieces: int
    cpu_ns: int

    def piece_ms(self, before: Reading) -> float:
        """What a piece has cost since then."""
        return (self.cpu_ns - before.cpu_ns) / (self.pieces - before.pieces) / 1e6


class Yardstick:
    """A process on one core, as a context manager; it ends with the `with` block."""

    def __init__(self, core: int) -> None:
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._file.write(_READING.pack(0, 0))
        self._file.flush()
        self._shared = mmap.mmap(self._file.fileno(), _READING.size)
        command = [sys.executable, "-m", "benchmarks.service.yardstick", str(core), self._file.name]
        self._process = subprocess.Popen(command, cwd=_ROOT)

    def __enter__(self) -> Self:
        while self.read().pieces < 1:
            if self._process.poll() is not None:
                raise RuntimeError(f"the yardstick ended with {self._process.returncode}")
            time.sleep(_PAUSE_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._shared.close()
        self._file.close()

    def read(self) -> Reading:
        """How many pieces it has done, and the CPU time of them."""
        return Reading(*_READING.unpack(self._shared[:]))


def _work(items: list[dict[str, object]], name: re.Pattern[str]) -> int:
    """What services do: text to objects and back, a few matches, a loop."""
    number = 0
    for item in json.loads(json.dumps(items)):
        match = name.match(item["name"])
        number ^= int(match[1]) if match is not None else 0
    for _ in range(3_000):
        number = (number * 31 + 7) & 0xFFFF
    return number


def main() -> None:
    """Never returns."""
    core, path = int(sys.argv[1]), Path(sys.argv[2])
    os.sched_setaffinity(0, {core})
    items: list[dict[str, object]] = [
        {"id": number, "name": f"item {number}", "tags": ["a", "b", str(number)]} for number in range(40)
    ]
    name = re.compile(r"item (\d+)")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), _READING.size) as shared:
        pieces = cpu_ns = 0
        while True:
            began = time.thread_time_ns()
            _work(items, name)
            cpu_ns += time.thread_time_ns() - began
            pieces += 1
            shared[:] = _READING.pack(pieces, cpu_ns)
            time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    main()
