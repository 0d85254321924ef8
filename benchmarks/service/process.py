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
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.service.switches import Switch, make_switch
from profiling_middleware import Settings
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
        apps = SwitchedApp(create_app(settings), create_app(Settings()))
        obedience = _Obedience(options.rate, settings, apps)
        if options.port is None:
            obedience.obey()
        else:
            _serve(apps, options.port, obedience)


def _serve(app: SwitchedApp, port: int, obedience: _Obedience) -> None:
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


class SwitchedApp:
    """The sample app twice, with profiling on and off in its middleware: what a request pays there is part of it."""

    def __init__(self, on: ASGIApp, off: ASGIApp) -> None:
        self._on, self._off = on, off
        self.profiled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # One lifespan for both: what it makes goes with each request.
        app = self._on if self.profiled or scope["type"] == "lifespan" else self._off
        await app(scope, receive, send)


class _Obedience:
    """Does as it is told."""

    def __init__(self, rate: int, settings: Settings, app: SwitchedApp) -> None:
        self._rate, self._settings, self._app = rate, settings, app
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
        self._app.profiled = name.startswith("capture ")

    def _off(self, name: str) -> float | None:
        self._app.profiled = False
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
