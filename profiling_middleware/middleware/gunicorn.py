"""For gunicorn.conf.py: `from profiling_middleware.middleware.gunicorn import post_worker_init`."""

from __future__ import annotations

from profiling_middleware.config import Settings
from profiling_middleware.middleware.service import ProfilerService
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.profiler import Profiler


def post_worker_init(worker: object) -> None:
    """Starts the worker's profiler before its first request, on the main thread, where SIGTERM can be noticed.

    Uses the settings of the middleware that the application mounted, or else those of the environment.
    """
    resident = THIS_PROCESS.resident
    settings = resident.settings if isinstance(resident, Profiler) else Settings.from_env()
    if settings.enabled:
        ProfilerService(settings).start()
