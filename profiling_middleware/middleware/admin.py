"""The routes under /debug/pprof/, once for ASGI and WSGI: a request in, a response or a capture to wait for out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from profiling_middleware.captures import CAPTURES
from profiling_middleware.config import Settings
from profiling_middleware.encoders.views import VIEWS
from profiling_middleware.keys import own_key
from profiling_middleware.middleware.access import refusal
from profiling_middleware.middleware.messages import PREFIX, AdminRequest, AdminResponse, error
from profiling_middleware.middleware.pages import index_page
from profiling_middleware.middleware.query import CaptureQuery, QueryError, parse_capture_query
from profiling_middleware.pipeline import Result
from profiling_middleware.profiler import NO_FLIGHT, Profiler
from profiling_middleware.recording import MAX_ON_DEMAND, Recording, TooManyCaptures
from profiling_middleware.workers.here import NoSuchWorker
from profiling_middleware.workers.host_recording import HostRecording, NoAnswer
from profiling_middleware.workers.meeting import Worker

_ALIASES: Mapping[str, str] = {"profile": "cpu", "lock": "mutex"}
_DEFAULT_SECONDS, _DEFAULT_TRACE_SECONDS = 30.0, 5.0


@dataclass(frozen=True, slots=True)
class Pending:
    """A capture that is being taken: wait for `recording.result`, or cancel it when the client has left."""

    recording: Recording | HostRecording
    uploaded: bool

    @property
    def result(self) -> Future[Result]:
        return self.recording.result

    def cancel(self) -> None:
        """The client has left."""
        self.recording.cancel()

    def response(self) -> AdminResponse:
        """The answer once `result` is there."""
        failure = self.result.exception()
        if isinstance(failure, NoAnswer):
            return error(502, f"profiling: {failure}")
        if failure is not None:
            return error(500, f"profiling: the capture failed ({type(failure).__name__}); the log says why")
        result, view = self.result.result(), self.recording.request.view
        headers = capture_headers(self.recording, uploaded=self.uploaded)
        if view is not None and result.view is not None:
            return AdminResponse(200, result.view, VIEWS[view], headers)
        kind = self.recording.info.kind
        name = "trace.gz" if kind == "trace" else f"{kind}.pprof.gz"
        attachment = ("Content-Disposition", f'attachment; filename="{name}"')
        return AdminResponse(200, result.artifact.body, "application/octet-stream", (attachment, *headers))


class Admin:
    """Answers requests for one profiler, which is made when somebody who may first needs it."""

    def __init__(self, settings: Settings, profiler: Callable[[], Profiler]) -> None:
        self._settings = settings
        self._profiler = profiler

    def answer(self, request: AdminRequest) -> AdminResponse | Pending:
        """Does not wait, and raises nothing: what fails in here is answered and logged."""
        refused = refusal(request, self._settings)
        if refused is not None:
            return refused
        try:
            return self._route(request)
        except RuntimeError as conflict:
            return error(409, f"profiling: {conflict}")
        except Exception as failure:
            self._settings.logger.exception("profiling: %s could not be answered", request.path[:80])
            return error(500, f"profiling: failed ({type(failure).__name__}); the log says why")

    def _route(self, request: AdminRequest) -> AdminResponse | Pending:
        if request.method != "GET":
            return error(405, f"profiling: {request.method[:20]} is not allowed: use GET", ("Allow", "GET"))
        name = request.path[len(PREFIX) :]
        if name == "":
            return error(308, "profiling: see /debug/pprof/", ("Location", f"{quote(request.root)}{PREFIX}/"))
        kind = _ALIASES.get(name[1:], name[1:])
        if kind == "":
            profiler = self._profiler()
            page = index_page(profiler.status, sorted(CAPTURES), self._workers(profiler))
            return AdminResponse(200, page.encode(), "text/html; charset=utf-8")
        if kind == "cmdline":
            return AdminResponse(200, "\x00".join(sys.orig_argv).encode("utf-8", "replace"))
        if kind in CAPTURES:
            return self._capture(kind, request)
        return error(404, f"profiling: there is no such profile: there are {_routes()}")

    def _capture(self, kind: str, request: AdminRequest) -> AdminResponse | Pending:
        default = min(_DEFAULT_TRACE_SECONDS if kind == "trace" else _DEFAULT_SECONDS, self._settings.max_seconds)
        try:
            query = parse_capture_query(request.query, kind, max_seconds=self._settings.max_seconds)
        except QueryError as bad:
            return error(400, f"profiling: {bad}")
        wait = query.wait and request.can_wait
        uploaded = query.upload and self._settings.uploads
        if not wait and not uploaded:
            return _nowhere_to_go(query)
        try:
            profiler = self._profiler()
            seconds = None if query.seconds is None and profiler.collects(kind) else query.seconds or default
            if query.last is not None and not profiler.keeps_flight:
                return error(409, f"profiling: last = {query.last:g}: {NO_FLIGHT}")
            record: Callable[..., Recording | HostRecording] = profiler.record
            if query.all_workers or query.pid is not None:
                record = partial(profiler.record_on_host, pid=query.pid)
            recording = record(
                kind,
                seconds,
                upload=uploaded,
                view=query.view if wait else None,
                full=query.full,
                last=query.last,
            )
        except NoSuchWorker as missing:
            return error(404, f"profiling: {missing}")
        except TooManyCaptures:
            message = f"profiling: {MAX_ON_DEMAND} captures on demand run already: try again when one has ended"
            return error(429, message, ("Retry-After", "10"))
        if wait:
            return Pending(recording, uploaded)
        key = own_key(recording.info)
        return AdminResponse(202, f"{key}\n".encode(), headers=capture_headers(recording, uploaded=True))

    def _workers(self, profiler: Profiler) -> Sequence[Worker]:
        try:
            return profiler.workers()
        except OSError as failure:
            self._settings.logger.warning("profiling: the workers cannot be listed: %s", failure)
            return ()


def capture_headers(recording: Recording | HostRecording, *, uploaded: bool) -> tuple[tuple[str, str], ...]:
    """Which capture it is, which process took it, and under which key it is stored."""
    info = recording.info
    workers = (("X-Profile-Workers", recording.summary),) if isinstance(recording, HostRecording) else ()
    stored = (("X-Profile-Key", own_key(info)),) if uploaded else ()
    return (
        *stored,
        ("X-Profile-Upload", "queued" if uploaded else "off"),
        ("X-Profile-Instance", info.instance),
        ("X-Profile-Capture-Id", info.capture_id),
        *workers,
    )


def _nowhere_to_go(query: CaptureQuery) -> AdminResponse:
    why = "wait = 0" if not query.wait else "this server does one thing at a time, so it answers at once, and it"
    return error(
        409,
        f"profiling: {why} needs a store for the capture: set PROFILE_S3_BUCKET or PROFILE_STORE, no upload=0",
    )


def _routes() -> str:
    return ", ".join((*sorted(CAPTURES), "profile", "cmdline"))
