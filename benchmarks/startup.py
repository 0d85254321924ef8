"""How much later a service answers its first request because it is profiled: process start to the first 200.

`python -m benchmarks.startup`: uvicorn with a small Starlette application, without the middleware, with it off, and
with it on, in turn.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.pairs import differences, machine, spread, verdict

_TURNS = 20
_TARGET_MS = 20.0
_SERVICE = """\
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def hello(request):
    return PlainTextResponse("hello")

app = Starlette(routes=[Route("/", hello)])
if "MOUNTED" in os.environ:
    from profiling_middleware import ProfilingMiddleware
    app.add_middleware(ProfilingMiddleware)
"""
_VARIANTS = {
    "not mounted": {},
    "mounted, off": {"MOUNTED": "1"},
    "mounted, on": {"MOUNTED": "1", "PROFILE_ENABLED": "1", "PROFILE_SERVICE_NAME": "startup"},
}


def main() -> None:
    print(f"to the first answer, in ms and in ms of CPU: median [10 % 90 %] of {_TURNS} turns; {machine()}")
    times: dict[str, list[float]] = {variant: [] for variant in _VARIANTS}
    cpu: dict[str, list[float]] = {variant: [] for variant in _VARIANTS}
    with tempfile.TemporaryDirectory(prefix="startup-") as directory:
        Path(directory, "service.py").write_text(_SERVICE)
        for variant in _VARIANTS:  # once for the byte code
            _first_answer(directory, variant)
        for turn in range(_TURNS):
            names = list(_VARIANTS)
            for variant in names[turn % 3 :] + names[: turn % 3]:
                elapsed, used = _first_answer(directory, variant)
                times[variant].append(elapsed)
                cpu[variant].append(used)
    for variant, values in times.items():
        print(f"{variant:14} {spread(values).text(0)}, CPU {spread(cpu[variant]).text(0)}")
    for one, other in (
        ("mounted, off", "not mounted"),
        ("mounted, on", "mounted, off"),
        ("mounted, on", "not mounted"),
    ):
        later, more = differences(times[one], times[other]), differences(cpu[one], cpu[other])
        print(
            f"{one} beside {other}: later by {later.text(1)}, {verdict(later.median, _TARGET_MS)}; CPU {more.text(1)}"
        )


def _first_answer(directory: str, variant: str) -> tuple[float, float]:
    """Milliseconds from the start of the process, and its CPU time until then."""
    # The kernel takes the connection before the service does: nothing polls, so nothing else uses the processor.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        start = time.perf_counter()
        service = _start(directory, variant, listening)
        try:
            with socket.create_connection(listening.getsockname(), timeout=60) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n")
                answer = connection.recv(4096)
                elapsed = time.perf_counter() - start
        finally:
            service.kill()
            _, service.returncode, usage = os.wait4(service.pid, 0)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"the service answered {answer!r}")
    return elapsed * 1000, (usage.ru_utime + usage.ru_stime) * 1000


def _start(directory: str, variant: str, listening: socket.socket) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PROFILE_", "OTEL_", "MOUNTED"))}
    # As where it is deployed: compiled before, by the first turn.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    kept["PYTHONPYCACHEPREFIX"] = str(Path(directory, "byte-code"))
    descriptor = listening.fileno()
    return subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "service:app", "--fd", str(descriptor), "--log-level", "error"],
        cwd=directory,
        env={**kept, **_VARIANTS[variant]},
        pass_fds=(descriptor,),
    )


if __name__ == "__main__":
    main()
