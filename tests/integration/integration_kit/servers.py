"""Servers as children of the tests: a clean environment, a log to read, and an end that is certain."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from html import unescape
from pathlib import Path
from types import TracebackType
from typing import Self

from integration_kit.http import Answer, fetch
from integration_kit.waiting import eventually

APPS = Path(__file__).parents[1] / "apps"
ASGI_APP, WSGI_APP = "profiled_asgi:app", "profiled_wsgi:app"
START_SECONDS = 40.0

_UNWANTED = ("PROFILE_", "AWS_", "OTEL_", "UVICORN_", "GUNICORN_", "WEB_CONCURRENCY", "PYTEST_", "FORWARDED_")
_LISTENING = r"(?:[Rr]unning on|Listening at:) (?P<url>http://127\.0\.0\.1:\d+|unix socket \S+)"


def clean_environ(home: Path, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would reach the profiler or boto3, and with `settings`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_UNWANTED) and not name.lower().endswith("_proxy")
    }
    paths = [str(APPS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **kept,
        "HOME": str(home),
        "PROFILE_SPOOL_DIR": str(home / "spool"),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        **(settings or {}),
    }


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server and all the processes it starts, in a process group of their own."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], directory: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=dict(environ),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def lines(self, *words: str) -> list[str]:
        """The lines of the log that contain all these words."""
        return [line for line in self.log.splitlines() if all(word in line for word in words)]

    def wait_for_log(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """The first match in the log, as soon as there is one."""
        expression = re.compile(pattern, re.MULTILINE)

        def look() -> re.Match[str] | None:
            found = expression.search(self.log)
            assert found or self.process.poll() is None, f"ended without {pattern!r} in its log:\n{self.log}"
            return found

        try:
            return eventually(look, f"{pattern!r} in the log", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    @cached_property
    def url(self) -> str:
        """Where it answers; waits until it does."""
        return self.wait_for_log(_LISTENING)["url"]

    def get(self, path: str, **options: object) -> Answer:
        """A GET of `path`; options as for `fetch`."""
        return fetch(f"{self.url}{path}", **options)  # type: ignore[arg-type]

    def profiling_threads(self) -> list[str]:
        """The names of the profiler's threads in the process that answers."""
        names: list[str] = self.get("/threads").json()["threads"]
        return [name for name in names if name.startswith("profiling-")]

    def facts(self, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """What the status page says of the process that answers."""
        page = self.get("/debug/pprof/", headers=headers or {})
        assert page.status == 200, page.text
        rows = re.findall(r"<tr><th>([^<]*)</th><td>([^<]*)</td></tr>", page.text)
        return {unescape(name): unescape(value) for name, value in rows}

    def terminate(self) -> float:
        """Sends SIGTERM to the server alone and returns the seconds until nothing of it is left."""
        started = time.monotonic()
        self.process.terminate()
        self.process.wait(60)
        eventually(lambda: not self._group_lives(), "its workers end as well")
        return time.monotonic() - started

    def kill(self) -> None:
        """Ends it and its workers at once. Their group cannot be anybody else's while one of them is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def _group_lives(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


class Servers:
    """Starts servers, in the thread of the test, and ends them all when the test is over."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running = ExitStack()
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def uvicorn(self, settings: Mapping[str, str], *options: str, app: str = ASGI_APP, loop: str = "asyncio") -> Server:
        """uvicorn on a port of its own choice, or where `--uds` says."""
        where = () if "--uds" in options else ("--host", "127.0.0.1", "--port", "0")
        return self.start([*_python("uvicorn"), *where, "--loop", loop, *options, app], settings)

    def gunicorn(self, settings: Mapping[str, str], *options: str, app: str = WSGI_APP, hook: bool = True) -> Server:
        """gunicorn on a port of its own choice; `hook` gives it the configuration that the README shows."""
        configuration = APPS / "gunicorn_with_hook.py" if hook else APPS / "gunicorn_without_hook.py"
        bind = ("--bind", "127.0.0.1:0", "--config", str(configuration))
        return self.start([*_python("gunicorn"), *bind, *options, app], settings)

    def granian(self, settings: Mapping[str, str], *options: str) -> Server:
        """granian, with an ASGI application."""
        where = ("--interface", "asgi", "--host", "127.0.0.1", "--port", str(free_port()))
        return self.start([*_python("granian"), *where, *options, ASGI_APP], settings)

    def hypercorn(self, settings: Mapping[str, str], *options: str) -> Server:
        """hypercorn, likewise."""
        where = ("--bind", f"127.0.0.1:{free_port()}")
        return self.start([*_python("hypercorn"), *where, *options, ASGI_APP], settings)

    def start(self, command: Sequence[str], settings: Mapping[str, str]) -> Server:
        """Any command, with a home directory of its own."""
        self._count += 1
        home = self._directory / f"server-{self._count}"
        home.mkdir()
        server = Server(command, clean_environ(home, settings), home, self._directory / f"server-{self._count}.log")
        self._running.callback(server.kill)
        return server


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]
