"""For gunicorn.conf.py: `from profiling_middleware.middleware.gunicorn import post_worker_init`."""

from __future__ import annotations

from collections.abc import Callable
from selectors import EVENT_READ, BaseSelector

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
        return
    selector = getattr(worker, "poller", None)
    if isinstance(selector, BaseSelector):
        service.open_door(_SelectorWatcher(selector))


class _SelectorWatcher:
    """The selector that gunicorn's threaded worker waits with, as a door uses it: a key's data is what is called."""

    def __init__(self, selector: BaseSelector) -> None:
        self._selector = selector

    def watch(self, descriptor: int, on_readable: Callable[[], object]) -> None:
        self._selector.register(descriptor, EVENT_READ, lambda _: on_readable())

    def unwatch(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
