"""One run is one forked process; several go on at a time."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import logging
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from faults.instrument import NATIVE, RAISED, REACHED, REACHED_BY_REQUESTS, REACHED_BY_SERVICE, Seams

_HANG_SECONDS = 30
_MOST_ENTRIES, _MOST_LINES = 100, 3_000
VARIANTS: dict[str, dict[str, Any]] = {
    "all kinds": {"types": ("cpu", "wall", "block", "mutex", "trace"), "slow_request": 0.001},
    "labels": {"types": ("cpu", "block", "mutex"), "engine": "polling", "store": "s3"},
    "portable": {"types": ("cpu", "wall", "block", "mutex", "trace"), "engine": "python"},
}
"""What settings add to those of a test."""


class Run(NamedTuple):
    """In a service with these settings this function raises, after so many calls that go well."""

    seam: str
    variant: str
    calls_before: int

    def __str__(self) -> str:
        often = "from its second call on" if self.calls_before else "always"
        return f"{self.seam} raises {often} ({self.variant})"


@dataclass
class Outcome:
    """How a run ended."""

    seen: dict[str, object] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)
    raised: bool = False
    reached: set[str] = field(default_factory=set)
    reached_by_service: set[str] = field(default_factory=set)
    reached_by_requests: set[str] = field(default_factory=set)
    log: str = ""

    def problems(self, expected: Outcome) -> list[str]:
        """What is not as in the application alone."""
        found = list(self.trouble)
        lines = self.log.splitlines()
        entries = sum(line.startswith(("INFO:", "WARNING:", "ERROR:", "Exception ")) for line in lines)
        if entries > _MOST_ENTRIES or len(lines) > _MOST_LINES:
            found.append(f"it logs {entries} times, {len(lines)} lines")
        return found + self.differences(expected)

    def differences(self, expected: Outcome) -> list[str]:
        """Answers that are not the same, three of them."""
        if not self.seen:
            return []  # it has not lived: that has been said
        keys = [key for key in {**expected.seen, **self.seen} if self.seen.get(key) != expected.seen.get(key)]
        shown = [f"{key}: {_short(self.seen.get(key))}, not {_short(expected.seen.get(key))}" for key in keys[:2]]
        return shown + [f"and {len(keys) - 2} more"] * (len(keys) > 2)


def _short(events: object) -> str:
    text = repr(events)
    return text if len(text) < 300 else f"{text[:140]} … {text[-140:]}"


def load(seams: Seams, names: Iterable[str]) -> None:
    """Loads the package and all it uses, so that no run has to."""
    for name in list(names):
        with contextlib.suppress(ImportError):  # where the extension is not built
            import_module(name)
    if NATIVE in sys.modules:
        seams.add_natives(sys.modules[NATIVE])
    import_module("faults.scenario")
    for name in ("asyncio", "ctypes", "uvicorn", "anyio._backends._asyncio", "concurrent.futures.thread", "boto3"):
        import_module(name)
    gc.collect()
    gc.freeze()


class Runner:
    """Forks, waits, and gathers what became of it."""

    def __init__(self, seams: Seams, jobs: int) -> None:
        self._seams, self._jobs = seams, jobs

    def reference(self, variant: str | None) -> Outcome:
        """A run in which nothing fails; None for the application without the middleware."""
        ((_, outcome),) = self.all([Run("", variant or "", 0)])
        if variant is not None:
            outcome.reached |= {name for name in self._seams.names if name.startswith(NATIVE)}
        return outcome

    def all(self, runs: Sequence[Run]) -> Iterator[tuple[Run, Outcome]]:
        """Each with its outcome, in the order in which they end."""
        waiting, going = list(reversed(runs)), dict[int, tuple[Run, Path, float]]()
        while waiting or going:
            while waiting and len(going) < self._jobs:
                run, folder = waiting.pop(), Path(tempfile.mkdtemp(prefix="seams-"))
                going[self._fork(run, folder)] = run, folder, time.monotonic() + 2 * _HANG_SECONDS
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                time.sleep(0.005)
                for late in [late for late, (_, _, deadline) in going.items() if time.monotonic() > deadline]:
                    os.kill(late, signal.SIGKILL)
                continue
            run, folder, _ = going.pop(child)
            yield run, _outcome(folder, status)
            shutil.rmtree(folder, ignore_errors=True)

    def _fork(self, run: Run, folder: Path) -> int:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _live(self._seams, run, folder)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        return child


def _outcome(folder: Path, status: int) -> Outcome:
    outcome = Outcome()
    with contextlib.suppress(OSError, EOFError):
        outcome = pickle.loads((folder / "outcome").read_bytes())
    outcome.log = (folder / "log").read_text(errors="replace") if (folder / "log").exists() else ""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        outcome.trouble.append(f"died of {signal.Signals(-code).name}")
    elif code:
        hung = "Timeout (" in outcome.log
        outcome.trouble.append("hung" if hung else f"failed: {outcome.log.strip().splitlines()[-1:]}")
    return outcome


def _live(seams: Seams, run: Run, folder: Path) -> None:
    """In the forked process."""
    from faults.scenario import Scenario

    from profiling_middleware import Settings, sampling

    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True)
    faulthandler.enable()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, force=True)
    tempfile.tempdir = str(folder)
    _hurry()
    settings = None
    if run.variant:
        options = {"store": (folder / "store").as_uri(), **VARIANTS[run.variant]}
        settings = Settings(enabled=True, environment="dev", duration=1, **options)
        sampling.why_not_native.cache_clear()
        if run.seam:
            seams.arm(run.seam, calls_before=run.calls_before)
        else:
            seams.record()
    scenario = Scenario(settings, partial(setattr, seams, "serves"))
    scenario.play()
    atexit._run_exitfuncs()
    scenario.look_after()
    seams.disarm()
    marks = (REACHED, REACHED_BY_SERVICE, REACHED_BY_REQUESTS)
    outcome = Outcome(scenario.seen, scenario.trouble, bool(seams.marked(RAISED)), *map(seams.marked, marks))
    (folder / "outcome").write_bytes(pickle.dumps(outcome))


def _hurry() -> None:
    """A service's first minutes in less than a second, and a store that nobody serves."""
    from profiling_middleware import periodic
    from profiling_middleware.middleware import service
    from profiling_middleware.tracing import sinks, tracer

    service._SETTLE_SECONDS = 0.0
    periodic._SETTLED_SECONDS = 0.01
    tracer._SECONDS = 0.05
    sinks._IN_MEMORY = 2_000
    os.environ |= {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
