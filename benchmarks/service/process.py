"""The process that is profiled: the sample app under uvicorn with `--port`, otherwise nothing but threads that sleep.

Does what it is told line by line on standard input and answers each line on standard output, both JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from benchmarks.service.switches import Switch, make_switch
from profiling_middleware import Settings
from profiling_middleware.labels import LabelMaker
from sample_app.app import create_app

_FIRST_WINDOW_SECONDS = 1.0
_NEVER_SECONDS = 86_400
_DEPTH = 20


def main() -> None:
    """Ends with its standard input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.process", description=__doc__)
    parser.add_argument("--port", type=int, help="of 127.0.0.1, to serve on")
    parser.add_argument("--rate", type=int, default=100, help="samples a second")
    parser.add_argument("--engine", help="of the captures; without it the middleware stays off")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="service-") as directory:
        settings = _settings(options, directory)
        obedience = _Obedience(options.rate, settings)
        if options.port is None:
            obedience.obey()
        else:
            _serve(create_app(settings), options.port, obedience)


def _serve(app: ASGIApp, port: int, obedience: _Obedience) -> None:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))

    def obey_then_end() -> None:
        obedience.obey()
        server.should_exit = True

    threading.Thread(target=obey_then_end, name="obey", daemon=True).start()
    server.run()


def _settings(options: argparse.Namespace, directory: str) -> Settings:
    """Those of a service that is profiled continuously, except that windows are opened by hand after the first."""
    if options.engine is None:
        return Settings()
    return Settings(
        enabled=options.port is not None,
        engine=options.engine,
        sample_rate=options.rate,
        service_name="benchmark",
        store=f"file://{directory}",
        types=("cpu",),
        duration=_FIRST_WINDOW_SECONDS,
        interval=_NEVER_SECONDS,
        max_seconds=_NEVER_SECONDS,
    )


class _Labels:
    """Whether the middleware labels requests: what they pay for that is part of being profiled.

    Nothing else is switched in it, and there is one app: two of them differ by a hundredth, whatever they do.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._maker: LabelMaker | None = None

    def switch(self, *, on: bool) -> None:
        """From now on requests are labelled, or not."""
        if not self._settings.enabled:
            return
        from profiling_middleware.profiler import Profiler

        labels = Profiler.shared(self._settings).labels
        self._maker = labels.maker or self._maker
        labels.label_with(self._maker if on else None)


class _Obedience:
    """Does as it is told."""

    def __init__(self, rate: int, settings: Settings) -> None:
        self._rate, self._settings = rate, settings
        self._labels = _Labels(settings)
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
            self._switches[name] = make_switch(name, self._rate, self._settings)
        self._switches[name].on(seconds)
        self._labels.switch(on=True)

    def _off(self, name: str) -> float | None:
        self._labels.switch(on=False)
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
