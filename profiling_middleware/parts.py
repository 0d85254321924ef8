"""The parts that a profiler is made of, from its start or a fork to its stop. What takes several of them is here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from profiling_middleware.captures import CAPTURES
from profiling_middleware.config import Settings
from profiling_middleware.failures import Failures
from profiling_middleware.instruments.made import make_instruments
from profiling_middleware.keys import new_instance_id
from profiling_middleware.lane import Lane
from profiling_middleware.limits import Limits
from profiling_middleware.periodic import Periodic
from profiling_middleware.pipeline import Pipeline
from profiling_middleware.recorder import Recorder
from profiling_middleware.sampling import find_extension, make_engine
from profiling_middleware.stores import make_store
from profiling_middleware.timer import TimerThread
from profiling_middleware.tracing.make import make_tracer
from profiling_middleware.tracing.requests import RequestSpans
from profiling_middleware.tracing.tracer import QUEUED, Tracer
from profiling_middleware.uploads import Uploads
from profiling_middleware.waiting.make import make_backlog
from profiling_middleware.workers.here import Workers
from profiling_middleware.workers.listener import Take

_FORK_SECONDS = 0.05


class Parts:
    """Made anew after a stop and in a forked child: none of them is used again then."""

    def __init__(
        self, settings: Settings, *, enabled: bool, requests: RequestSpans, failures: Failures, take_for_another: Take
    ) -> None:
        """`enabled` may differ from the settings: profiling can be switched. No thread runs yet."""
        self.settings, logger = settings, settings.logger
        self._failures = failures
        self.instance = new_instance_id()
        self.kinds = tuple(kind for kind in settings.types if kind in CAPTURES)
        self.timer = TimerThread(logger)
        self.uploads = self._make_uploads() if replace(settings, enabled=enabled).uploads else None
        self.pipeline = Pipeline(self.uploads, logger)
        self.workers = Workers(settings, self.instance, self.pipeline, take_for_another)
        self.trace_lane = Lane("profiling-trace", QUEUED, logger)
        self.tracer = self._make_tracer(requests, failures)
        self.recorder = Recorder(
            timer=self.timer,
            make_engine=lambda: make_engine(settings),
            instruments=make_instruments(failures, lambda: find_extension(settings)),
            tracer=self.tracer,
            pipeline=self.pipeline,
            service=settings.service_name,
            instance=self.instance,
            logger=logger,
        )
        self.periodic = Periodic(settings, self.kinds, self.timer, self.recorder)
        self.limits = Limits()

    def need_uploads(self) -> Uploads:
        """Where captures go; made now if profiling was off so far."""
        if self.uploads is None:
            self.uploads = self._make_uploads()
            self.pipeline.upload_to(self.uploads)
        return self.uploads

    def begin_windows(self) -> None:
        """Windows begin, and other workers can reach this one."""
        uploads = self.need_uploads()
        self.pipeline.keep_thread()
        uploads.keep_thread()
        self.periodic.begin(uploads)
        self.workers.listen(enabled=True)

    def end_windows(self, reason: str, timeout: float) -> None:
        """Windows end, marked partial with `reason`; see `Periodic.end`."""
        self.periodic.end(reason, timeout)
        self.workers.stop_listening()
        self.pipeline.release_thread()
        if self.uploads is not None:
            self.uploads.release_thread()

    def finish(self, reason: str, deadline: float) -> None:
        """Ends all captures, marked partial with `reason`, and stores them, until `deadline` on the monotonic clock.

        A step that fails is logged, and the others are taken.
        """

        def finish_workers() -> None:
            if self.workers.finish(_until(deadline)):
                self.pipeline.drain(_until(deadline))

        def finish_uploads() -> None:
            if self.uploads is not None:
                self.uploads.finish(_until(deadline))

        for step in (
            self.workers.leave,
            lambda: self.workers.end_all(reason),
            lambda: self.periodic.end_all(reason, _until(deadline)),
            self.tracer.hurry,
            lambda: self.trace_lane.drain(_until(deadline)),
            lambda: self.pipeline.drain(_until(deadline)),
            finish_workers,
            finish_uploads,
        ):
            try:
                step()
            except Exception:
                self._failures.note()

    def end_captures(self, reason: str) -> None:
        """Ends running captures, marked partial with `reason`. Takes no lock: it is called in a signal handler."""
        recorder, workers = self.recorder, self.workers

        def end() -> None:
            recorder.end_all(reason)
            workers.end_all(reason)

        self.timer.call_soon_from_signal(end)

    def pause(self) -> None:
        """Before a fork: lets own threads end, within a bound. A child of one thread is what fork is safe with."""
        uploads = self.uploads
        _each(
            lambda: self.timer.pause(_FORK_SECONDS),
            lambda: self.workers.pause(_FORK_SECONDS),
            self.recorder.pause,
            lambda: self.trace_lane.pause(_FORK_SECONDS),
            lambda: self.pipeline.pause(_FORK_SECONDS),
            lambda: uploads.pause(_FORK_SECONDS) if uploads is not None else None,
        )

    def resume(self) -> None:
        """After a fork, in the parent."""
        _each(
            *([self.uploads.resume] if self.uploads is not None else ()),
            self.pipeline.resume,
            self.trace_lane.resume,
            self.recorder.resume,
            self.workers.resume,
            self.timer.resume,
        )

    def abandon(self) -> None:
        """In a forked child: lets go of what is the parent's. Its locks may have been held, its threads are gone."""
        _each(
            self.trace_lane.abandon,  # closing lets its thread end
            self.workers.abandon,
            self.recorder.close,
            *([self.uploads.abandon] if self.uploads is not None else ()),
        )

    def _make_uploads(self) -> Uploads:
        store = make_store(self.settings)
        backlog = make_backlog(self.settings, store.place, self.instance)
        return Uploads(store, backlog, self.settings.logger, self._call_later)

    def _make_tracer(self, requests: RequestSpans, failures: Failures) -> Tracer:
        settings = self.settings

        def on_slow(why: str) -> None:
            recorder = self.recorder
            recorder.call_soon(lambda: recorder.snapshot(why))

        return make_tracer(
            settings,
            timeline=self.timer.timeline,
            lane=self.trace_lane,
            requests=requests,
            find_hooks=lambda: find_extension(settings),
            on_slow=on_slow,
            failures=failures,
        )

    def _call_later(self, seconds: float, action: Callable[[], object]) -> None:
        timeline = self.timer.timeline
        self.timer.call_soon(lambda: timeline.call_at(timeline.now() + seconds, action))


def _until(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _each(*steps: Callable[[], object]) -> None:
    """Whatever one of them meets, such as no descriptor, the others are taken. Around a fork nothing is logged."""
    for step in steps:
        with contextlib.suppress(Exception):
            step()
