"""Puts the parts of a backlog together."""

from __future__ import annotations

import hashlib
import re
import time

from profiling_middleware.config import Settings
from profiling_middleware.private_directory import open_below
from profiling_middleware.waiting.backlog import Backlog
from profiling_middleware.waiting.memory import Memory
from profiling_middleware.waiting.spool import Spool


def make_backlog(settings: Settings, place: str, instance: str) -> Backlog:
    """Of what waits for the store at `place`; nothing is opened yet."""

    def open_spool() -> Spool:
        directory = open_below(settings.spool_dir, spool_name(settings.service_name, place))
        try:
            return Spool(directory, instance, settings.spool_max_bytes, time.time_ns)
        except BaseException:
            directory.close()
            raise

    return Backlog(open_spool, Memory(), settings.logger)


def spool_name(service: str, place: str) -> str:
    """The directory of one service and one store: their captures are put by whoever has both, and nobody else."""
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", place.rpartition("//")[2]).strip("-.")[-60:]
    return f"{service}-{readable}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
