"""For gunicorn.conf.py: `from profiling_middleware.middleware.gunicorn import post_worker_init`."""

from __future__ import annotations

from profiling_middleware.config import Settings
from profiling_middleware.middleware.service import ProfilerService
from profiling_middleware.process import THIS_PROCESS


def post_worker_init(worker: object) -> None:
    """Starts the worker's profiler before its first request.

    And notices SIGTERM from the beginning, which a threaded worker's first capture could only do up to a second late.
    Uses the settings of the middleware that the application mounted, or else those of the environment.
    """
    mounted = THIS_PROCESS.claimant
    service = mounted if isinstance(mounted, ProfilerService) else ProfilerService(Settings.from_env())
    THIS_PROCESS.notice_sigterm()
    if service.wants_start:
        service.start()
