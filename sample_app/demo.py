"""`python -m sample_app.demo`: the whole road on this machine, from a busy service to its profiles in S3.

Starts an S3 server, the sample service with profiling on, and a load; shows what arrives, until Ctrl-C or for
DEMO_SECONDS. Ends with 0 only if profiles arrived, all of them can be read, and no request failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sample_app.children import start_child, stop_child
from sample_app.demo_store import Arrival, Arrivals, format_arrivals
from sample_app.ports import free_port
from sample_app.pprof_top import format_top
from sample_app.s3_server import S3Server, S3ServerError
from sample_app.seaweedfs import WeedNotFoundError

ENVIRONMENT = "dev"
BUCKET = f"stl-debugging-{ENVIRONMENT}"
INTERVAL_SECONDS, WINDOW_SECONDS = 15, 10
PROFILING = {
    "PROFILE_SERVICE_NAME": "sample-app",
    "PROFILE_INTERVAL": f"{INTERVAL_SECONDS}s",
    "PROFILE_DURATION": f"{WINDOW_SECONDS}s",
    "PROFILE_TYPES": "cpu,wall,block,mutex,trace",
}
RATE = 30
LOOK_SECONDS = 2.0
READY_SECONDS = 30.0


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why."""


def main() -> int:
    """Run the demo; its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        problems = _run(_demo_seconds())
    except (DemoError, S3ServerError, WeedNotFoundError) as error:
        problems = [str(error)]
    except KeyboardInterrupt:
        problems = ["stopped before it was over"]
    for problem in problems:
        print(f"demo: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _run(seconds: float | None) -> list[str]:
    """Everything from start to end; what went wrong."""
    directory = Path(tempfile.mkdtemp(prefix="profiling-demo-"))
    with _kept_if_used(directory), S3Server(buckets=[BUCKET]) as s3:
        _say(f"S3 server at {s3.endpoint}, bucket {BUCKET}; copies of what arrives go to {directory}")
        arrivals = Arrivals(s3.client(), BUCKET, directory)
        with _service(s3) as url:
            load = start_child([sys.executable, "-m", "sample_app.load", url, f"--rate={RATE}", "--seconds=0"])
            _say(f"{RATE} requests a second go to {url}; the first window ends in {WINDOW_SECONDS} s")
            try:
                _watch(arrivals, url, load, seconds)
            finally:
                load_code = stop_child(load)
        _look(arrivals)  # The service has uploaded its last window while it stopped.
        _show(arrivals)
    problems = arrivals.problems()
    if load_code:
        problems.append("requests failed: see the table of the load")
    return problems


def _watch(arrivals: Arrivals, url: str, load: subprocess.Popen[bytes], seconds: float | None) -> None:
    """Print what arrives until the time is over or Ctrl-C."""
    ends_at = time.monotonic() + seconds if seconds is not None else float("inf")
    shown = False
    try:
        while time.monotonic() < ends_at:
            if load.poll() is not None:
                raise DemoError(f"the load has ended by itself, with code {load.returncode}")
            _look(arrivals)
            if not shown and _newest(arrivals, "cpu") and _newest(arrivals, "wall"):
                shown = True
                _show(arrivals)
                _explain(arrivals, url, endless=seconds is None)
            time.sleep(max(0.0, min(LOOK_SECONDS, ends_at - time.monotonic())))
    except KeyboardInterrupt:
        _say("stopping")


@contextmanager
def _kept_if_used(directory: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):  # The copies in it are for the developer.
            directory.rmdir()


@contextmanager
def _service(s3: S3Server) -> Iterator[str]:
    """Run the sample service with profiling on; its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["--enable-profiling", f"--environment={ENVIRONMENT}", f"--port={port}", "--no-access-log"]
    # What the developer has set for other services must not lead profiles away from the S3 server in here.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PROFILE_", "AWS_")) and name != "OTEL_SERVICE_NAME"
    }
    # What an earlier demo has left is not for this one's bucket.
    with tempfile.TemporaryDirectory(prefix="sample-app-spool-") as spool:
        environ = inherited | s3.environ() | PROFILING | {"PROFILE_SPOOL_DIR": spool}
        service = start_child([sys.executable, "-m", "sample_app", *arguments], environ)
        try:
            _wait_until_ready(service, url)
            yield url
        finally:
            stop_child(service, patience=30.0)


def _wait_until_ready(service: subprocess.Popen[bytes], url: str) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise DemoError(f"the sample service ended with code {service.returncode}: see its log above")
        try:
            with direct.open(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise DemoError(f"the sample service did not answer within {READY_SECONDS:g} s")


def _look(arrivals: Arrivals) -> None:
    for arrival in arrivals.look():
        _say(f"arrived: {arrival.key} ({arrival.size} bytes)")


def _show(arrivals: Arrivals) -> None:
    _say(f"\nIn {BUCKET}:\n{format_arrivals(arrivals.seen)}")
    newest = _newest(arrivals, "cpu")
    if newest is not None and newest.profile is not None:
        _say(f"\nWhere {newest.key} says the CPU time went:\n{format_top(newest.profile, 'cpu')}\n")


def _explain(arrivals: Arrivals, url: str, *, endless: bool) -> None:
    newest = _newest(arrivals, "cpu")
    file = newest.file if newest else "FILE"
    _say(
        "How to look closer:\n"
        f"  go tool pprof -http=: {file}\n"
        f"  curl -o cpu.pprof.gz '{url}/debug/pprof/cpu?seconds=10'\n"
        f"  in a browser: {url}/debug/pprof/cpu?seconds=10&format=html\n"
        f"  the last seconds, for ui.perfetto.dev: curl -o trace.gz '{url}/debug/pprof/trace?last=10'\n"
    )
    if endless:
        _say(f"More arrives every {INTERVAL_SECONDS} s; Ctrl-C ends the demo.\n")


def _newest(arrivals: Arrivals, kind: str) -> Arrival | None:
    """The last profile of a whole window, nearly: the service takes a moment to begin and end one."""
    return arrivals.newest(kind, 0.9 * WINDOW_SECONDS)


def _demo_seconds() -> float | None:
    text = os.environ.get("DEMO_SECONDS", "")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise DemoError(f"DEMO_SECONDS = {text!r} is no number of seconds: write one such as 60, or unset it")
    return seconds


def _say(text: str) -> None:
    # At once, because the children write to the same terminal.
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
