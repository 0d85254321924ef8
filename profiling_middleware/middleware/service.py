"""What both middlewares share: the process's profiler and the routes, each loaded when it is first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from profiling_middleware.config import Settings
from profiling_middleware.failures import Failures
from profiling_middleware.labels import LabelMaker
from profiling_middleware.middleware.work import Endpoints
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.threads import OwnThread

if TYPE_CHECKING:
    import socket

    from profiling_middleware.middleware.admin import Admin
    from profiling_middleware.middleware.door import Door, Watcher
    from profiling_middleware.profiler import Profiler
    from profiling_middleware.tracing.requests import RequestSpans


_SETTLE_SECONDS = 1.0
_LOAD_SECONDS = 4.0


class ProfilerService:
    """One mounted middleware's side of the profiler."""

    def __init__(self, settings: Settings) -> None:
        """Raises OtherSettings when a middleware in this process has enabled other settings."""
        self.settings = settings
        self.failures = Failures(settings.logger)
        """What failed on the way of a request."""
        self._profiler: Profiler | None = None
        self._admin: Admin | None = None
        self._starter: threading.Thread | None = None
        self._stopping = threading.Event()
        self._door: Door | None = None
        self.label_maker: LabelMaker | None = None
        """Set while requests are to be labelled: profiling is on, and its engine can read labels."""
        self.endpoints = Endpoints()
        self.spans: RequestSpans | None = None
        """Set while requests are to be traced."""
        self.on_change: Callable[[], object] = lambda: None
        """Called when one of the two has changed, on any thread."""
        THIS_PROCESS.mount(self)
        if settings.enabled:
            THIS_PROCESS.claim(self)
            THIS_PROCESS.notice_sigterm()

    @property
    def loaded(self) -> bool:
        """Whether `admin()` answers without importing anything."""
        return self._admin is not None

    def profiler(self) -> Profiler:
        """The profiler of this process. Raises RuntimeError when it has other settings."""
        if self._profiler is None:
            with THIS_PROCESS.imports.underway():
                from profiling_middleware.profiler import Profiler

            self.follow(Profiler.shared(self.settings))
        assert self._profiler is not None
        return self._profiler

    def follow(self, profiler: Profiler) -> None:
        """Labels and traces requests for `profiler` from now on, whenever it wants that, if it has these settings."""
        if self._profiler is None and profiler.settings == self.settings:
            self._profiler = profiler
            profiler.requests.on_change(self._tracing_changed)
            profiler.labels.on_change(self._labels_changed)

    @property
    def wants_start(self) -> bool:
        """Whether profiling is on, by the settings or since somebody has switched it, and has not begun."""
        profiler = self._profiler
        return self.settings.enabled if profiler is None else profiler.enabled and not profiler.started

    def _tracing_changed(self, traced: bool) -> None:
        self.spans = self._profiler.requests if traced and self._profiler is not None else None
        self.on_change()

    def _labels_changed(self, maker: LabelMaker | None) -> None:
        self.label_maker = maker
        self.on_change()

    def admin(self) -> Admin:
        """The routes."""
        if self._admin is None:
            with THIS_PROCESS.imports.underway():
                from profiling_middleware.middleware.admin import Admin

            self._admin = Admin(self.settings, self.profiler)
        return self._admin

    def start(self) -> None:
        """Begins periodic profiling, once, a second from now and on a thread of its own: loading the profiler takes as
        long as many a service takes to answer its first request. Whatever fails is logged and goes no further.
        """
        if self._starter is None:
            self._starter = OwnThread(self._start, "profiling-start")
            self._starter.start()

    def open_door(self, watcher: Watcher) -> None:
        """While profiling is off, other workers can reach this one. On the thread of `watcher`.

        Whatever fails is logged and goes no further.
        """
        try:
            from profiling_middleware.middleware.door import Door, may_be_asked

            if self._door is None and may_be_asked(self.settings):
                self._door = Door(self.settings, watcher, self._welcome)
        except Exception as error:
            self.settings.logger.info("profiling: other workers cannot reach this one: %s", error)

    def close_door(self) -> None:
        """Likewise; does nothing when there is none."""
        door, self._door = self._door, None
        if door is not None:
            try:
                door.close()
            except Exception:
                self.settings.logger.exception("profiling: an internal step failed; the service is not affected")

    def _welcome(self, connection: socket.socket) -> None:
        try:
            self.profiler().welcome(connection)
        except Exception:
            connection.close()
            self.settings.logger.exception("profiling: another worker got no answer; the service is not affected")

    def after_fork_in_child(self) -> None:
        """Begins anew if the fork came before the profiler was there; if it was, it sees to itself."""
        begun, self._starter = self._starter is not None, None
        self._stopping = threading.Event()
        if begun and self._profiler is None:
            self.start()

    def _start(self) -> None:
        if self._stopping.wait(_SETTLE_SECONDS):
            return
        try:
            self.profiler().start()
        except Exception:
            self.settings.logger.exception("profiling: stays off: it cannot be started; the service is not affected")

    def stop(self) -> None:
        """Ends it, within the profiler's bound; it may be started again."""
        try:
            if self._starter is not None:
                self._stopping.set()
                self._starter.join(_LOAD_SECONDS)
                self._starter = None
                self._stopping.clear()
            if self._profiler is not None:
                self._profiler.stop()
            THIS_PROCESS.renounce()
        except Exception:
            self.settings.logger.exception("profiling: not stopped in order; the service is not affected")
