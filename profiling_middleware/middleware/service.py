"""What both middlewares share: the process's profiler and the routes, each loaded when it is first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiling_middleware.config import Settings

if TYPE_CHECKING:
    from profiling_middleware.middleware.admin import Admin
    from profiling_middleware.profiler import Profiler


class ProfilerService:
    """One mounted middleware's side of the profiler."""

    def __init__(self, settings: Settings) -> None:
        """Raises RuntimeError when this process has a profiler with other settings."""
        self.settings = settings
        self._profiler: Profiler | None = None
        self._admin: Admin | None = None
        if settings.enabled:
            self.profiler().notice_sigterm()

    @property
    def loaded(self) -> bool:
        """Whether `admin()` answers without importing anything."""
        return self._admin is not None

    def profiler(self) -> Profiler:
        """The profiler of this process. Raises RuntimeError when it has other settings."""
        if self._profiler is None:
            from profiling_middleware.profiler import Profiler

            self._profiler = Profiler.shared(self.settings)
        return self._profiler

    def admin(self) -> Admin:
        """The routes."""
        if self._admin is None:
            from profiling_middleware.middleware.admin import Admin

            self._admin = Admin(self.settings, self.profiler)
        return self._admin

    def ensure_started(self) -> None:
        """Begins periodic profiling unless it runs in this process already: a forked child begins anew."""
        if self._profiler is None or not self._profiler.started:
            self.start()

    def start(self) -> None:
        """Begins periodic profiling; whatever fails is logged and does not reach the application."""
        try:
            self.profiler().start()
        except Exception:
            self.settings.logger.exception("profiling: not started; the service is not affected")

    def stop(self) -> None:
        """Ends it, within the profiler's bound."""
        try:
            if self._profiler is not None:
                self._profiler.stop()
        except Exception:
            self.settings.logger.exception("profiling: not stopped in order; the service is not affected")
