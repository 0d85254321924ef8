"""gunicorn's configuration as the README shows it, and a look at the master's own threads."""

from __future__ import annotations

import threading

from profiling_middleware.middleware.gunicorn import post_worker_init  # noqa: F401


def pre_fork(server: object, worker: object) -> None:
    """Runs in the master, before each worker."""
    names = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("profiling-"))
    print("profiling threads of the master:", names, flush=True)
