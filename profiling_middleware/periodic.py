"""What profiling does all the time while it is on: windows, cumulative collection, the flight recorder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from profiling_middleware.captures import CUMULATIVE
from profiling_middleware.config import DEFAULT_SERVICE_NAME, Settings
from profiling_middleware.recorder import Recorder
from profiling_middleware.sampling import why_not_native
from profiling_middleware.schedule import Schedule
from profiling_middleware.timer import TimerThread
from profiling_middleware.units import format_duration
from profiling_middleware.uploads import Uploads

# boto3 takes half a second to import: not in the moment the service starts, but before a stop soon after needs it.
_SETTLED_SECONDS = 1.0


class Periodic:
    """Begun and ended as often as wanted, from any thread; what it does happens on the timer's."""

    def __init__(self, settings: Settings, kinds: Sequence[str], timer: TimerThread, recorder: Recorder) -> None:
        self._settings, self._kinds = settings, kinds
        self._timer, self._recorder = timer, recorder
        self._schedule: Schedule | None = None
        self._missed_before = 0

    @property
    def next_window(self) -> float | None:
        """Seconds until the next window opens; None when there is none."""
        schedule = self._schedule
        opens = schedule.next_start if schedule is not None else None
        return max(0.0, opens - self._timer.timeline.now()) if opens is not None else None

    @property
    def missed(self) -> int:
        """How many windows were not taken, since the process was not running."""
        schedule = self._schedule
        return self._missed_before + (schedule.missed if schedule is not None else 0)

    def begin(self, uploads: Uploads) -> None:
        """The first window opens at once."""
        self._timer.call_soon(lambda: self._begin(uploads))

    def settle(self, timeout: float) -> None:
        """Returns when all that was begun or ended before is so, after `timeout` seconds at the latest."""
        self._do(lambda: None, timeout)

    def end(self, reason: str, timeout: float) -> None:
        """Ends what is periodic, marked partial with `reason`; returns after `timeout` seconds at the latest."""

        def end() -> None:
            self.close()
            self._recorder.end_windows(reason)

        self._do(end, timeout)

    def end_all(self, reason: str, timeout: float) -> None:
        """Likewise with every capture, and lets go of all there is."""

        def end() -> None:
            self.close()
            self._recorder.end_all(reason)
            self._recorder.close()
            self._timer.timeline.clear()

        self._do(end, timeout)

    def close(self) -> None:
        """Opens no further window. On the timer's thread."""
        schedule, self._schedule = self._schedule, None
        if schedule is not None:
            self._missed_before += schedule.missed
            schedule.stop()

    def _begin(self, uploads: Uploads) -> None:
        timeline, settings = self._timer.timeline, self._settings
        self.close()
        self._schedule = Schedule(timeline, settings.interval, settings.duration, self._open_window, settings.logger)
        if CUMULATIVE.intersection(self._kinds):
            self._recorder.collect()
        if "trace" in self._kinds:
            self._recorder.keep_flight()
        self._schedule.start()
        timeline.call_at(timeline.now() + _SETTLED_SECONDS, uploads.warm_up)

    def _open_window(self, end: float) -> None:
        self._recorder.window(self._kinds, end)

    def _do(self, action: Callable[[], object], timeout: float) -> None:
        done = threading.Event()

        def do() -> None:
            try:
                action()
            finally:
                done.set()

        if not self._timer.call_soon(do):
            do()  # at exit, when nothing was running: then nobody else is on the timeline
        done.wait(timeout)


def log_start(settings: Settings, kinds: Sequence[str], instance: str, place: str) -> None:
    """Says what is captured how often, and where it goes."""
    settings.logger.info(
        "profiling: %s every %s for %s as service %s, instance %s, to %s",
        ", ".join(kinds) or "nothing",
        format_duration(settings.interval),
        format_duration(settings.duration),
        settings.service_name,
        instance,
        place,
    )


def warn_of_settings(settings: Settings, kinds: Sequence[str]) -> None:
    """Says what an operator may not have wanted."""
    logger, reason = settings.logger, why_not_native()
    if reason is not None and settings.engine == "auto":
        logger.warning("profiling: the portable engine is used, which is less exact: %s", reason)
    if settings.slow_request is not None and "trace" not in kinds:
        logger.warning("profiling: PROFILE_SLOW_REQUEST has no effect: PROFILE_TYPES names no trace")
    if settings.service_name == DEFAULT_SERVICE_NAME:
        logger.warning(
            "profiling: the service has no name and is stored as %s: set PROFILE_SERVICE_NAME", DEFAULT_SERVICE_NAME
        )
