"""Profiler: one a process. Builds the parts from Settings, starts and stops them, survives fork."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from profiling_middleware.captures import CAPTURES, CUMULATIVE, CaptureMaker
from profiling_middleware.captures.trace import LastSeconds, TraceCapture
from profiling_middleware.config import Settings
from profiling_middleware.failures import Failures
from profiling_middleware.instruments.made import make_instruments
from profiling_middleware.keys import new_instance_id
from profiling_middleware.labels import LabelMaker, RequestLabels
from profiling_middleware.lane import Lane
from profiling_middleware.limits import Limits
from profiling_middleware.model import Artifact
from profiling_middleware.periodic import Periodic, log_start, warn_of_settings
from profiling_middleware.pipeline import Pipeline, Request
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.recording import Recorder, Recording
from profiling_middleware.sampling import check_engine, make_engine, make_label_maker, make_step_hooks
from profiling_middleware.status import Status, take_status
from profiling_middleware.stores import make_store
from profiling_middleware.timer import TimerThread
from profiling_middleware.tracing.flight import FLIGHT_SECONDS
from profiling_middleware.tracing.make import make_tracer
from profiling_middleware.tracing.requests import RequestSpans
from profiling_middleware.tracing.tracer import QUEUED, Tracer
from profiling_middleware.uploads import Uploads
from profiling_middleware.waiting.make import make_backlog
from profiling_middleware.workers.here import Workers
from profiling_middleware.workers.host_recording import HostRecording
from profiling_middleware.workers.meeting import Worker
from profiling_middleware.workers.messages import Question

# Within the 5 seconds in which a service should be gone, with a second for the server's own shutdown.
STOP_SECONDS = 3.0
_FORK_SECONDS = 0.05
_RESULT_GRACE_SECONDS = 60.0
NO_FLIGHT = "no trace is recorded all the time: set PROFILE_ENABLED, and name trace in PROFILE_TYPES"


class Profiler:
    """Continuous and on-demand profiling of this process.

    `with Profiler(settings):` is all that a worker or a script needs; web services use the middlewares. Periodic
    windows run between `start()` and `stop()` when the settings enable them; `capture()` works in any case.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Takes the settings of the environment when none are given. Raises SettingsError for what cannot be used."""
        self.settings = Settings.from_env() if settings is None else settings
        check_engine(self.settings)  # a named engine that is missing fails at start-up
        self._logger = self.settings.logger
        self._failures = Failures(self._logger)
        self._started = False
        self._has_warned = False
        self._enabled = self.settings.enabled
        self.labels = RequestLabels()
        """What the middlewares label requests with while windows are captured."""
        self.requests = RequestSpans()
        """Where the middlewares tell of requests while a trace is taken."""
        self._lock = threading.RLock()
        self._uploads: Uploads | None = None
        self._build()

    @classmethod
    def shared(cls, settings: Settings) -> Profiler:
        """The profiler of this process: the one that lives here, or a new one.

        Raises RuntimeError when it has other settings.
        """
        # Under a lock: a WSGI server's first requests may come all at once.
        with THIS_PROCESS.lock:
            resident = THIS_PROCESS.resident
            if resident is None:
                resident = cls(settings)
                THIS_PROCESS.settle(resident)
        if not isinstance(resident, cls) or resident.settings != settings:
            raise RuntimeError("this process has a Profiler with other settings: give every middleware the same ones")
        return resident

    def start(self) -> None:
        """Begins the periodic windows if profiling is on; doing it twice changes nothing.

        Raises RuntimeError when another profiler runs in this process.
        """
        with self._lock:
            THIS_PROCESS.settle(self)
            # Also the second time: the server may have set its own handler meanwhile.
            THIS_PROCESS.notice_sigterm()
            if self._started:
                return
            self._started = True
            if self._enabled and self._uploads is not None:
                self._begin_windows(self._uploads)

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Ends all captures, marked partial, and uploads them; returns after `timeout` seconds at the latest."""
        deadline = time.monotonic() + timeout
        if not self._lock.acquire(timeout=max(0.0, timeout)):
            return  # start() hangs, and the service must not
        try:
            if THIS_PROCESS.resident is not self:
                return
            self._workers.leave()
            self._workers.end_all("the service stopped")
            self.labels.label_with(None)
            self._periodic.end_all("the service stopped", timeout)
            self._tracer.hurry()
            self._trace_lane.drain(max(0.0, deadline - time.monotonic()))
            self._pipeline.drain(max(0.0, deadline - time.monotonic()))
            if self._workers.finish(max(0.0, deadline - time.monotonic())):
                self._pipeline.drain(max(0.0, deadline - time.monotonic()))
            if self._uploads is not None:
                self._uploads.finish(max(0.0, deadline - time.monotonic()))
            THIS_PROCESS.leave(self)
            self._started = False
            self._build()
        finally:
            self._lock.release()

    def enable(self, timeout: float = STOP_SECONDS) -> None:
        """Switches profiling on, as PROFILE_ENABLED does, and starts the profiler if it is not running.

        From any thread, at any time; doing it twice changes nothing. It stays on over `stop()` and `start()`, and a
        forked child has the state of its parent. Returns when the first window is open, after `timeout` seconds at the
        latest. Raises RuntimeError when another profiler runs in this process.
        """
        with self._lock:
            before, was_started = self._enabled, self._started
            if before and was_started:
                return
            # First the store: whoever sees that profiling is on counts on it.
            uploads = self._uploads
            if uploads is None:
                uploads = self._uploads = self._make_uploads()
                self._pipeline.upload_to(uploads)
            self._enabled = True
            try:
                self.start()
                if was_started:
                    self._begin_windows(uploads)
                self._periodic.settle(timeout)
            except Exception:
                self._enabled = before
                self.labels.label_with(None)
                raise

    def disable(self, timeout: float = STOP_SECONDS) -> None:
        """Switches profiling off: windows end, marked partial, and are uploaded; what was collected is forgotten.

        Captures on demand go on. From any thread; doing it twice changes nothing. Returns when nothing is collected
        any more, after `timeout` seconds at the latest; uploads are not waited for.
        """
        with self._lock:
            was_running, self._enabled = self._enabled and self._started, False
            if not was_running:
                return
            self.labels.label_with(None)
            self._periodic.end("profiling was switched off", timeout)
            self._workers.stop_listening()
            self._pipeline.release_thread()
            if self._uploads is not None:
                self._uploads.release_thread()
            self._logger.info("profiling: switched off, instance %s", self._instance)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def capture(self, kind: str, seconds: float) -> Artifact:
        """Captures for `seconds` seconds and returns the gzipped bytes with their key; they go to the store as well.

        Blocks the calling thread. Raises ValueError for a kind or a length that is not to be had and
        TooManyCaptures when too many run already.
        """
        recording = self.record(kind, seconds)
        try:
            return recording.result.result(seconds + _RESULT_GRACE_SECONDS).artifact
        except FutureTimeoutError:
            recording.cancel()
            raise

    def snapshot_trace(self, last: float = FLIGHT_SECONDS) -> Artifact:
        """The trace of the `last` seconds, recorded already; it goes to the store as well.

        Blocks the calling thread until it is written. Raises ValueError where no trace is recorded all the time
        (profiling is off, or `types` does not name it), and TooManyCaptures.
        """
        return self.record("trace", 0.0, last=last).result.result(_RESULT_GRACE_SECONDS).artifact

    def record(
        self,
        kind: str,
        seconds: float | None,
        *,
        upload: bool = True,
        view: str | None = None,
        full: bool = True,
        last: float | None = None,
    ) -> Recording:
        """As `capture`, without waiting: the recording's `result` is a future.

        Without `seconds` it has what has been collected of a cumulative kind. `upload=False` keeps the capture out of
        the store; `view` renders it for people as well. A trace is of everything if `full`, else of what is long enough
        to matter; with `last` it is of so many seconds before now.
        """
        if kind not in CAPTURES:
            raise ValueError(f"kind = {kind!r} cannot be captured: choose from {', '.join(CAPTURES)}")
        if seconds is None and not self.collects(kind):
            raise ValueError(f"seconds = None takes what has been collected, and no {kind} profile is: give a length")
        make: CaptureMaker | None = partial(TraceCapture, full=full) if kind == "trace" else None
        if last is not None:
            make, seconds = self._last_trace(kind, last), 0.0  # it is recorded already
        elif seconds is not None and not 0 < seconds <= self.settings.max_seconds:
            raise ValueError(
                f"seconds = {seconds!r} is out of range: use more than 0 and at most {self.settings.max_seconds} "
                "(PROFILE_MAX_SECONDS)"
            )
        THIS_PROCESS.settle(self)
        THIS_PROCESS.notice_sigterm()
        request = Request(upload=upload and self.uploads, own_key_only=True, view=view)
        return self._recorder.on_demand(kind, seconds, request, make)

    def record_on_host(
        self,
        kind: str,
        seconds: float | None,
        *,
        pid: int | None = None,
        upload: bool = True,
        view: str | None = None,
        full: bool = True,
        last: float | None = None,
    ) -> HostRecording:
        """As `record`, of all workers of the service on this host at once; with `pid` of that process alone.

        One profile, each sample labelled with its `pid`; or their traces one behind the other. Raises NoSuchWorker
        when there is none of `pid`.
        """
        own = None
        if pid in (None, os.getpid()):
            own = self.record(kind, seconds, upload=False, full=full, last=last)
        THIS_PROCESS.settle(self)
        request = Request(upload=upload and self.uploads, own_key_only=True, view=view)
        try:
            return self._workers.ask(Question(kind=kind, seconds=seconds, full=full, last=last), request, own, pid)
        except BaseException:
            if own is not None:
                own.cancel()
            raise

    def workers(self) -> list[Worker]:
        """The workers of the service on this host that can be reached, and this one, by process id. Raises OSError."""
        own = Worker(pid=os.getpid(), instance=self._instance, enabled=self._enabled, started_ns=self._workers.since_ns)
        return sorted((own, *self._workers.others()), key=lambda worker: worker.pid)

    def welcome(self, connection: socket.socket) -> None:
        """Answers what another worker asks on a connection, which has been checked to be of this user."""
        self._workers.welcome(connection)

    def _record_for_another(self, question: Question) -> Recording:
        return self.record(question.kind, question.seconds, upload=False, full=question.full, last=question.last)

    def _last_trace(self, kind: str, last: float) -> CaptureMaker:
        if kind != "trace":
            raise ValueError(f"last = {last!r} is for a trace: a {kind} profile is not kept for a time like that")
        if not 0 < last <= FLIGHT_SECONDS:
            raise ValueError(f"last = {last!r} is out of range: use more than 0 and at most {FLIGHT_SECONDS:g} seconds")
        if not self.keeps_flight:
            raise ValueError(f"last = {last!r}: {NO_FLIGHT}")
        return partial(LastSeconds, last_seconds=last)

    def set_block_profile_rate(self, nanoseconds: int) -> None:
        """As Go's runtime.SetBlockProfileRate: one wait for a lock in so many nanoseconds waited is recorded.

        Longer ones always are, and what is recorded counts for the rest; 1 records all, 0 none. Raises ValueError.
        """
        if nanoseconds < 0:
            raise ValueError(f"nanoseconds = {nanoseconds!r} is negative: use 0 or more")
        self._recorder.call_soon(lambda: self._recorder.set_block_rate(nanoseconds))

    def set_mutex_profile_fraction(self, fraction: int) -> None:
        """As Go's runtime.SetMutexProfileFraction: one in `fraction` releases that ended a wait is recorded.

        It counts for the rest; 1 records all, 0 none. Raises ValueError.
        """
        if fraction < 0:
            raise ValueError(f"fraction = {fraction!r} is negative: use 0 or more")
        self._recorder.call_soon(lambda: self._recorder.set_mutex_fraction(fraction))

    def collects(self, kind: str) -> bool:
        """Whether this kind is collected all the time: then `record` takes it without a length."""
        return kind in CUMULATIVE and kind in self._kinds and self._recorder.collects

    @property
    def keeps_flight(self) -> bool:
        """Whether the last seconds of the trace are kept all the time."""
        return self._recorder.keeps_flight

    @property
    def started(self) -> bool:
        """Whether it is between `start()` and `stop()`."""
        return self._started

    @property
    def enabled(self) -> bool:
        """Whether profiling is on: by the settings, or since `enable()`; until `disable()`."""
        return self._enabled

    @property
    def uploads(self) -> bool:
        """Whether captures go to a store: when profiling is on, or when somebody named a bucket or a store."""
        return replace(self.settings, enabled=self._enabled).uploads

    @property
    def label_maker(self) -> LabelMaker | None:
        """What requests are labelled with while profiling is on; None where the engine cannot read labels."""
        return self.labels.maker

    @property
    def instance(self) -> str:
        """The id of this process; a forked child has its own."""
        return self._instance

    @property
    def status(self) -> Status:
        """How the profiler is doing."""
        return take_status(
            self.settings,
            enabled=self._enabled,
            instance=self._instance,
            kinds=self._kinds,
            periodic=self._periodic,
            recorder=self._recorder,
            pipeline=self._pipeline,
            uploads=self._uploads,
            limits_met=self.limits.met,
        )

    # -- the process -------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Lets own threads end, within a bound: a child of one thread is what fork is safe with."""
        self._timer.pause(_FORK_SECONDS)
        self._workers.pause(_FORK_SECONDS)
        self._recorder.pause()
        self._trace_lane.pause(_FORK_SECONDS)
        self._pipeline.pause(_FORK_SECONDS)
        if self._uploads is not None:
            self._uploads.pause(_FORK_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Goes on where `before_fork` stopped."""
        if self._uploads is not None:
            self._uploads.resume()
        self._pipeline.resume()
        self._trace_lane.resume()
        self._recorder.resume()
        self._workers.resume()
        self._timer.resume()

    def after_fork_in_child(self) -> None:
        """New threads, new client, new instance, counts from zero; runs again if it ran in the parent."""
        started = self._started
        # The parent's locks may have been held, its threads are gone: nothing of them is used again.
        self._lock = threading.RLock()
        self._trace_lane.abandon()  # closing lets its thread end
        self._workers.abandon()
        self._recorder.close()
        if self._uploads is not None:
            self._uploads.abandon()
        self._started = False
        self.labels.label_with(None)
        self._build()
        if started:
            self.start()

    def on_sigterm(self) -> None:
        """Ends running captures now: a request that waits for one would hold up the server's own shutdown."""
        recorder, workers = self._recorder, self._workers

        def end() -> None:
            recorder.end_all("SIGTERM")
            workers.end_all("SIGTERM")

        self._timer.call_soon_from_signal(end)

    # -- the parts ---------------------------------------------------------------------------------------------

    def _build(self) -> None:
        settings, logger = self.settings, self._logger
        self._instance = new_instance_id()
        self._kinds = tuple(kind for kind in settings.types if kind in CAPTURES)
        self._timer = TimerThread(logger)
        self._uploads = self._make_uploads() if self.uploads else None
        self._pipeline = Pipeline(self._uploads, logger)
        self._workers = Workers(settings, self._instance, self._pipeline, self._record_for_another)
        self._trace_lane = Lane("profiling-trace", QUEUED, logger)
        self._tracer = self._make_tracer()
        self._recorder = Recorder(
            timer=self._timer,
            make_engine=lambda: make_engine(settings),
            instruments=make_instruments(self._failures),
            tracer=self._tracer,
            pipeline=self._pipeline,
            service=settings.service_name,
            instance=self._instance,
            logger=logger,
        )
        self._periodic = Periodic(settings, self._kinds, self._timer, self._recorder)
        self.limits = Limits()
        """What requests for captures may take."""

    def _make_uploads(self) -> Uploads:
        store = make_store(self.settings)
        backlog = make_backlog(self.settings, store.place, self._instance)
        return Uploads(store, backlog, self._logger, self._call_later)

    def _make_tracer(self) -> Tracer:
        settings = self.settings

        def on_slow(why: str) -> None:
            recorder = self._recorder
            recorder.call_soon(lambda: recorder.snapshot(why))

        return make_tracer(
            settings,
            timeline=self._timer.timeline,
            lane=self._trace_lane,
            requests=self.requests,
            find_hooks=lambda: make_step_hooks(settings),
            on_slow=on_slow,
            failures=self._failures,
        )

    def _begin_windows(self, uploads: Uploads) -> None:
        for mounted in THIS_PROCESS.mounted:
            mounted.follow(self)
        self.labels.label_with(make_label_maker(self.settings))
        log_start(self.settings, self._kinds, self._instance, uploads.store.place)
        if not self._has_warned:  # a forked child has it from its parent, and need not say it again
            self._has_warned = True
            warn_of_settings(self.settings, self._kinds)
        self._pipeline.keep_thread()
        uploads.keep_thread()
        self._periodic.begin(uploads)
        if not THIS_PROCESS.aliases:  # others reach it already, by the door of its middleware
            self._workers.listen(enabled=True)

    def _call_later(self, seconds: float, action: Callable[[], object]) -> None:
        timeline = self._timer.timeline
        self._timer.call_soon(lambda: timeline.call_at(timeline.now() + seconds, action))
