"""The process that is profiled: the sample app under uvicorn with `--port`, otherwise nothing but threads that sleep.

Does what it is told line by line on standard input and answers each line on standard output, both JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from benchmarks.service.switches import Switch, make_switch
from profiling_middleware import Settings
from sample_app.app import create_app

_DEPTH = 20


def main() -> None:
    """Ends with its standard input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.process", description=__doc__)
    parser.add_argument("--port", type=int, help="of 127.0.0.1, to serve on")
    parser.add_argument("--rate", type=int, default=100, help="samples a second")
    options = parser.parse_args()
    obey = _Obedience(options.rate).obey
    if options.port is None:
        obey()
        return
    config = uvicorn.Config(create_app(Settings()), host="127.0.0.1", port=options.port, log_level="warning")
    server = uvicorn.Server(config)

    def obey_then_end() -> None:
        obey()
        server.should_exit = True

    threading.Thread(target=obey_then_end, name="obey", daemon=True).start()
    server.run()


class _Obedience:
    """Does as it is told."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._switches: dict[str, Switch] = {}
        self._orders: dict[str, Callable[..., Any]] = {
            "on": self._on,
            "off": self._off,
            "sleepers": self._sleepers,
            "memory": self._memory,
        }

    def obey(self) -> None:
        """Returns at the end of standard input."""
        for line in sys.stdin:
            order = json.loads(line)
            try:
                answer = {"answer": self._orders[order.pop("order")](**order)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)

    def _on(self, name: str, seconds: float) -> None:
        if name not in self._switches:
            self._switches[name] = make_switch(name, self._rate)
        self._switches[name].on(seconds)

    def _off(self, name: str) -> float | None:
        return self._switches[name].off()

    def _sleepers(self, count: int) -> None:
        """So many threads that wait for what never comes, each 20 frames deep."""
        never = threading.Event()
        for _ in range(count):
            threading.Thread(target=_sleep_deep, args=(never, _DEPTH), daemon=True).start()

    def _memory(self) -> int:
        """Resident memory in bytes."""
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _sleep_deep(never: threading.Event, depth: int) -> None:
    if depth:
        _sleep_deep(never, depth - 1)
    else:
        never.wait()


if __name__ == "__main__":
    main()
