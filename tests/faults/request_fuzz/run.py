"""So many requests to services with so many settings, and what came of them."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import signal
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from unittest import mock

from profiling_middleware.config import Settings, SettingsError
from profiling_middleware.middleware import peer, wsgi_answer
from profiling_middleware.process import THIS_PROCESS
from request_fuzz import drive_asgi, drive_socket, drive_wsgi
from request_fuzz.cases import Cases
from request_fuzz.variables import make_variables
from request_fuzz.watch import FuzzFailure, Watch, must_not_show

_BATCH = 100
# A look at whether a client is still there, which the one here never is.
_LOOK_SECONDS = 0.001


def run(requests: int, seed: int) -> Counter[str]:
    """Sends `requests`: some 60 % through ASGI, 35 % through WSGI, 5 % as bytes. Raises FuzzFailure with its batch."""
    rng, counts = random.Random(seed), Counter[str]()
    sent, sigterm = 0, signal.getsignal(signal.SIGTERM)
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-") as directory,
        mock.patch.object(wsgi_answer, "_LOOK_SECONDS", _LOOK_SECONDS),
        Watch() as watch,
    ):
        while sent < requests:
            count = min(_BATCH, requests - sent)
            batch = rng.randrange(2**48)
            try:
                _run_batch(random.Random(batch), count, Path(directory), watch, counts)
            except FuzzFailure as failure:
                raise FuzzFailure(f"seed {seed}, after {sent} requests, batch {batch}: {failure}") from None
            finally:
                if THIS_PROCESS.resident is not None:
                    THIS_PROCESS.resident.stop()
                THIS_PROCESS.renounce()
                signal.signal(signal.SIGTERM, sigterm)
            sent += count
        counts["captures"] = watch.captures
    return counts


def _run_batch(rng: random.Random, count: int, directory: Path, watch: Watch, counts: Counter[str]) -> None:
    settings = _settings(rng, directory, counts)
    cases = Cases(rng)
    way = rng.choices(["asgi", "wsgi", "socket"], [60, 35, 5])[0]
    if way == "socket":
        drive_socket.drive(settings, rng, count, watch, counts)
        return
    made = [cases.make(settings.token) for _ in range(count)]
    # There is no connection whose owner could be looked up, which takes long.
    with mock.patch.object(peer, "_TABLES", ()):
        if way == "wsgi":
            drive_wsgi.drive(settings, made, watch, counts)
        else:
            asyncio.run(drive_asgi.drive(settings, made, watch, counts))


def _settings(rng: random.Random, directory: Path, counts: Counter[str]) -> Settings:
    """The first of made-up settings that can be used, put where it does no harm."""
    while True:
        variables = make_variables(rng)
        counts["settings"] += 1
        token = variables.get("PROFILE_TOKEN", "").strip()
        try:
            settings = Settings.from_env(variables)
        except SettingsError as refused:
            counts["settings refused"] += 1
            must_not_show(token or None, "".join(traceback.format_exception(refused)))
            continue
        except Exception as error:
            raise FuzzFailure(f"{variables!r} raised {error!r}") from None
        must_not_show(token or None, repr(settings), str(settings))
        if rng.random() < 0.5:
            settings = dataclasses.replace(settings, token=None)
        # On, it would have a bucket without being told of one.
        store = directory.as_uri() if settings.enabled or rng.random() < 0.5 else "s3"
        return dataclasses.replace(
            settings, bucket=None, store=store, spool_dir=directory, environment=_place(rng, settings)
        )


def _place(rng: random.Random, settings: Settings) -> str | None:
    # A developer's machine more often than chance has it: elsewhere nobody comes in.
    return "dev" if settings.token is None and rng.random() < 0.7 else settings.environment
