"""gunicorn's configuration as the README shows it, and a look at the master's own threads."""

from __future__ import annotations

import os
import threading

from profiling_middleware.middleware.gunicorn import post_worker_init  # noqa: F401


def pre_fork(server: object, worker: object) -> None:
    """Runs in the master, before each worker."""
    names = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("profiling-"))
    # In one piece: the workers write into the same pipe.
    os.write(1, f"profiling threads of the master: {names}\n".encode())
