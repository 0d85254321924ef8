"""The process that is profiled, seen from the one that measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sample_app.ports import free_port

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0
_END_SECONDS = 20.0
PINNED_CORE = 0
_FIRST_WINDOW_SECONDS = 4.0
"""More than until the first window is over, which no setting prevents."""


class Service:
    """A process of its own, as a context manager; it ends with the `with` block."""

    def __init__(self, *, serve: bool, rate: int, engine: str | None, pinned: bool = False) -> None:
        """`serve`: the sample app is in it. `rate`: samples a second of whatever is switched on.

        `engine`: of this project's captures, if it is these that are switched on. `pinned`: it runs on one core only.
        """
        self._port = free_port() if serve else None
        arguments = ["--rate", str(rate)] + (["--port", str(self._port)] if self._port else [])
        arguments += ["--engine", engine] if engine else []
        self._profiled = engine is not None
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PROFILE_", "DD_", "OTEL_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.service.process", *arguments],
            cwd=_ROOT,
            env=kept,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if pinned:
            os.sched_setaffinity(self._process.pid, {PINNED_CORE})
        self._clock = (~self._process.pid << 3) | 2
        """The id of the process's CPU clock, of all its threads: see clock_getcpuclockid."""

    def __enter__(self) -> Self:
        self.memory()
        if self._port is not None:
            self._wait_until_it_answers()
            if self._profiled:
                time.sleep(_FIRST_WINDOW_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def url(self) -> str:
        """Where the sample app answers."""
        return f"http://127.0.0.1:{self._port}"

    def cpu_ns(self) -> int:
        """CPU time of the whole process so far."""
        return time.clock_gettime_ns(self._clock)

    def main_thread_cpu_ns(self) -> int:
        """That of its first thread, in which an event loop runs: see proc(5), schedstat."""
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])

    def on(self, name: str, seconds: float) -> None:
        """Switches something on, see switches.make_switch; it is to be off again after about so many seconds."""
        self._tell("on", name=name, seconds=seconds)

    def off(self, name: str) -> float | None:
        """Its own CPU time as it says itself, as a share of a core."""
        said: float | None = self._tell("off", name=name)
        return said

    def sleepers(self, count: int) -> None:
        """Starts so many threads that sleep."""
        self._tell("sleepers", count=count)

    def memory(self) -> int:
        """Resident memory in bytes."""
        size: int = self._tell("memory")
        return size

    def _tell(self, order: str, **arguments: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"order": order, **arguments}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended with {self._process.wait(_END_SECONDS)}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["answer"]

    def _wait_until_it_answers(self) -> None:
        give_up = time.monotonic() + _START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.05)
