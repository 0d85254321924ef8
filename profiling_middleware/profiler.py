"""Profiler: one a process. Builds the parts from Settings, starts and stops them, survives fork."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from types import TracebackType
from typing import Self

from profiling_middleware.captures import CUMULATIVE
from profiling_middleware.captures.asked import capture_maker, check_kind, check_length, last_seconds_maker
from profiling_middleware.config import Settings
from profiling_middleware.failures import Failures
from profiling_middleware.labels import LabelMaker, RequestLabels
from profiling_middleware.limits import Limits
from profiling_middleware.model import Artifact
from profiling_middleware.parts import Parts
from profiling_middleware.periodic import log_start, warn_of_settings
from profiling_middleware.pipeline import Request
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.recording import Recording
from profiling_middleware.sampling import check_engine, make_label_maker
from profiling_middleware.status import Status, take_status
from profiling_middleware.tracing.flight import FLIGHT_SECONDS
from profiling_middleware.tracing.requests import RequestSpans
from profiling_middleware.workers.host_recording import HostRecording
from profiling_middleware.workers.meeting import Worker
from profiling_middleware.workers.messages import Question

# Within the 5 seconds in which a service should be gone, with a second for the server's own shutdown.
STOP_SECONDS = 3.0
_RESULT_GRACE_SECONDS = 60.0


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
        self._parts = self._make_parts()

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
            if self._enabled:
                self._begin_windows()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Ends all captures, marked partial, and uploads them; returns after `timeout` seconds at the latest."""
        deadline = time.monotonic() + timeout
        if not self._lock.acquire(timeout=max(0.0, timeout)):
            return  # start() hangs, and the service must not
        try:
            if THIS_PROCESS.resident is not self:
                return
            self.labels.label_with(None)
            self._parts.finish("the service stopped", deadline)
            THIS_PROCESS.leave(self)
            self._started = False
            self._parts = self._make_parts()
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
            self._parts.need_uploads()
            self._enabled = True
            try:
                self.start()
                if was_started:
                    self._begin_windows()
                self._parts.periodic.settle(timeout)
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
            self._parts.end_windows("profiling was switched off", timeout)
            self._logger.info("profiling: switched off, instance %s", self.instance)

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
        check_kind(kind)
        make = capture_maker(kind, full=full)
        if last is not None:
            make, seconds = last_seconds_maker(kind, last, kept=self.keeps_flight), 0.0
        else:
            check_length(kind, seconds, collected=self.collects(kind), most=self.settings.max_seconds)
        THIS_PROCESS.settle(self)
        THIS_PROCESS.notice_sigterm()
        request = Request(upload=upload and self.uploads, own_key_only=True, view=view)
        return self._parts.recorder.on_demand(kind, seconds, request, make)

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
            return self._parts.workers.ask(
                Question(kind=kind, seconds=seconds, full=full, last=last), request, own, pid
            )
        except BaseException:
            if own is not None:
                own.cancel()
            raise

    def workers(self) -> list[Worker]:
        """The workers of the service on this host that can be reached, and this one, by process id. Raises OSError."""
        workers = self._parts.workers
        own = Worker(pid=os.getpid(), instance=self.instance, enabled=self._enabled, started_ns=workers.since_ns)
        return sorted((own, *workers.others()), key=lambda worker: worker.pid)

    def welcome(self, connection: socket.socket) -> None:
        """Answers what another worker asks on a connection, which has been checked to be of this user."""
        self._parts.workers.welcome(connection)

    def _record_for_another(self, question: Question) -> Recording:
        return self.record(question.kind, question.seconds, upload=False, full=question.full, last=question.last)

    def set_block_profile_rate(self, nanoseconds: int) -> None:
        """As Go's runtime.SetBlockProfileRate: one wait for a lock in so many nanoseconds waited is recorded.

        Longer ones always are, and what is recorded counts for the rest; 1 records all, 0 none. Raises ValueError.
        """
        if nanoseconds < 0:
            raise ValueError(f"nanoseconds = {nanoseconds!r} is negative: use 0 or more")
        recorder = self._parts.recorder
        recorder.call_soon(lambda: recorder.set_block_rate(nanoseconds))

    def set_mutex_profile_fraction(self, fraction: int) -> None:
        """As Go's runtime.SetMutexProfileFraction: one in `fraction` releases that ended a wait is recorded.

        It counts for the rest; 1 records all, 0 none. Raises ValueError.
        """
        if fraction < 0:
            raise ValueError(f"fraction = {fraction!r} is negative: use 0 or more")
        recorder = self._parts.recorder
        recorder.call_soon(lambda: recorder.set_mutex_fraction(fraction))

    def collects(self, kind: str) -> bool:
        """Whether this kind is collected all the time: then `record` takes it without a length."""
        return kind in CUMULATIVE and kind in self._parts.kinds and self._parts.recorder.collects

    @property
    def keeps_flight(self) -> bool:
        """Whether the last seconds of the trace are kept all the time."""
        return self._parts.recorder.keeps_flight

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
        return self._parts.instance

    @property
    def limits(self) -> Limits:
        """What requests for captures may take."""
        return self._parts.limits

    @property
    def status(self) -> Status:
        """How the profiler is doing."""
        return take_status(self._parts, enabled=self._enabled)

    # -- the process -------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """See `Parts.pause`."""
        self._parts.pause()

    def after_fork_in_parent(self) -> None:
        """Goes on where `before_fork` stopped."""
        self._parts.resume()

    def after_fork_in_child(self) -> None:
        """New threads, new client, new instance, counts from zero; runs again if it ran in the parent."""
        started = self._started
        self._lock = threading.RLock()  # the parent's may have been held
        self._parts.abandon()
        self._started = False
        self.labels.label_with(None)
        self._parts = self._make_parts()
        if started:
            self.start()

    def on_sigterm(self) -> None:
        """Ends running captures now: a request that waits for one would hold up the server's own shutdown."""
        self._parts.end_captures("SIGTERM")

    # -- the parts ---------------------------------------------------------------------------------------------

    def _make_parts(self) -> Parts:
        return Parts(
            self.settings,
            enabled=self._enabled,
            requests=self.requests,
            failures=self._failures,
            take_for_another=self._record_for_another,
        )

    def _begin_windows(self) -> None:
        parts = self._parts
        for mounted in THIS_PROCESS.mounted:
            mounted.follow(self)
        self.labels.label_with(make_label_maker(self.settings))
        log_start(self.settings, parts.kinds, parts.instance, parts.need_uploads().store.place)
        if not self._has_warned:  # a forked child has it from its parent, and need not say it again
            self._has_warned = True
            warn_of_settings(self.settings, parts.kinds)
        parts.begin_windows()
