"""WSGI: `app.wsgi_app = WSGIProfilingMiddleware(app.wsgi_app)`. Translation of the protocol only."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from profiling_middleware.config import Settings, SettingsError
from profiling_middleware.failures import raised_by_a_handler
from profiling_middleware.labels import CURRENT, LabelMaker, Served
from profiling_middleware.middleware.paths import PREFIX, is_admin_path
from profiling_middleware.middleware.service import ProfilerService
from profiling_middleware.middleware.wsgi_work import Work, is_whole, observed
from profiling_middleware.process import OtherSettings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from profiling_middleware.tracing.requests import RequestSpans


class WSGIProfilingMiddleware:
    """Starts the profiler at the first request and answers `/debug/pprof/`; all else passes untouched.

    An idle worker profiles too when gunicorn's configuration has the line
    `from profiling_middleware.middleware.gunicorn import post_worker_init`.
    """

    def __init__(self, app: WSGIApplication, *, settings: Settings | None = None) -> None:
        """Takes the settings of the environment when none are given.

        Raises SettingsError for what cannot be used, and OtherSettings (a RuntimeError) when this process has a
        profiler with other settings.
        """
        self.app = app
        self._started = False
        # Until everything is there, and if that fails: then nothing is looked for, and all passes.
        self._look_for = cast(str, None)
        try:
            self._begin(settings)
        except (SettingsError, OtherSettings):
            raise
        except Exception:
            logger = settings.logger if settings is not None else logging.getLogger("profiling_middleware")
            logger.exception("profiling: stays off: an internal step failed; the service is not affected")

    def _begin(self, settings: Settings | None) -> None:
        self._service = ProfilerService(Settings.from_env() if settings is None else settings)
        self._service.on_change = self._look_again
        self._look_for = self._what_to_look_for()

    def _what_to_look_for(self) -> str:
        # While profiling is off one comparison is all that a request pays; else it is for what every path contains.
        wants_all = self._service.label_maker is not None or self._service.spans is not None
        return "" if wants_all or (self._service.wants_start and not self._started) else PREFIX

    def _look_again(self) -> None:
        # Labels and spans change on two threads: whoever writes last must have seen both.
        while self._look_for != (wanted := self._what_to_look_for()):
            self._look_for = wanted

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            passes = self._look_for not in environ["PATH_INFO"]
        except KeyError:  # an empty path may be left out
            passes = self._look_for in (PREFIX, None)
        except TypeError:  # nothing is looked for
            passes = True
        if passes:
            return self.app(environ, start_response)
        if self._is_for_us(environ):
            return self._answer(environ, start_response)
        make, spans = self._service.label_maker, self._service.spans
        if make is None and spans is None:
            return self.app(environ, start_response)
        return self._serve(make, spans, environ, start_response)

    def _is_for_us(self, environ: WSGIEnvironment) -> bool:
        """Whether the routes are asked. Starts the profiler, if that is still to be done."""
        try:
            if not self._started:
                self._started = True
                self._look_again()
                if self._service.wants_start:
                    self._service.start()
            path = environ.get("PATH_INFO", "")
            return PREFIX in path and is_admin_path(path)
        except Exception as error:
            self._service.failures.note_own(error)
            return False

    def _serve(
        self,
        make: LabelMaker | None,
        spans: RequestSpans | None,
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Serves a request that is labelled and traced, its body too where that is made bit by bit.

        Whatever fails in that goes no further.
        """
        failures, work = self._service.failures, None
        try:
            served = Served(self._service.endpoints.of_wsgi, environ)
            work = Work(served, spans, failures)
            if make is not None:
                work.tokens.append(CURRENT.set(make(Served.labels, served)))
            if spans is not None:
                work.trace(spans)
            start_response = work.noted(start_response)
        except Exception as error:
            if work is not None and raised_by_a_handler(error):
                work.end()
            failures.note_own(error)
        try:
            body = self.app(environ, start_response)
        except BaseException:
            try:
                if work is not None:
                    work.end(failed=True)
            except Exception as error:
                failures.note_own(error)
            raise
        try:
            if work is None or not is_whole(body, environ):
                return body if work is None else observed(body, work)
            work.end()
        except Exception as error:
            failures.note_own(error)
        return body

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Not when the service starts: most processes are never asked.
        from profiling_middleware.middleware.wsgi_answer import answer

        return answer(self._service.admin(), environ, start_response)
