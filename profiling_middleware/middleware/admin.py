"""The routes under /debug/pprof/, once for ASGI and WSGI: a request in, a response or a capture to wait for out."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from profiling_middleware import limits
from profiling_middleware.captures import CAPTURES
from profiling_middleware.captures.asked import NO_FLIGHT
from profiling_middleware.config import Settings
from profiling_middleware.encoders.views import VIEWS
from profiling_middleware.keys import own_key
from profiling_middleware.limits import LimitMet, Place
from profiling_middleware.middleware.access import names_token, refusal
from profiling_middleware.middleware.cmdline import shown_command_line
from profiling_middleware.middleware.later import Later
from profiling_middleware.middleware.messages import AdminRequest, AdminResponse, Awaited, error
from profiling_middleware.middleware.pages import index_page
from profiling_middleware.middleware.paths import PREFIX
from profiling_middleware.middleware.query import CaptureQuery, QueryError, parse_capture_query, parse_index_format
from profiling_middleware.middleware.state import state_response
from profiling_middleware.middleware.switch import SWITCHES, switch, switch_refusal
from profiling_middleware.pipeline import QueueFull, Result
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.profiler import Profiler
from profiling_middleware.recorder import MAX_ON_DEMAND
from profiling_middleware.recording import CaptureCancelled, Recording, TooManyCaptures
from profiling_middleware.units import format_size
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
    place: Place
    logger: logging.Logger

    @property
    def result(self) -> Future[Result]:
        return self.recording.result

    def cancel(self) -> None:
        """The client has left."""
        self.recording.cancel()
        self.close()

    def close(self) -> None:
        """The client has its answer, or will not get it: another one may ask. Doing it twice changes nothing."""
        self.place.leave()

    def break_off(self) -> None:
        """The client has not read its answer in the time there is for that."""
        self.place.note("reading time")
        self.logger.warning(
            "profiling: capture=%s not sent: its client has not read it within %g s, which is the limit",
            self.recording.info.capture_id,
            limits.READ_SECONDS,
        )
        self.close()

    def response(self) -> AdminResponse:
        """The answer once `result` is there."""
        failure = self.result.exception()
        if isinstance(failure, QueueFull):
            self.place.note("captures waiting")
            return error(503, f"profiling: {failure}, which is the most: try again", ("Retry-After", "10"))
        if isinstance(failure, NoAnswer):
            return error(502, f"profiling: {failure}")
        if failure is not None:
            return error(500, f"profiling: the capture failed ({type(failure).__name__}); the log says why")
        result, view = self.result.result(), self.recording.request.view
        headers = capture_headers(self.recording, uploaded=self.uploaded)
        size = len(result.artifact.body if result.view is None else result.view)
        if size > limits.RESPONSE_BYTES:
            return self._too_big(size, headers)
        if view is not None and result.view is not None:
            return AdminResponse(200, result.view, VIEWS[view], headers)
        kind = self.recording.info.kind
        name = "trace.gz" if kind == "trace" else f"{kind}.pprof.gz"
        attachment = ("Content-Disposition", f'attachment; filename="{name}"')
        return AdminResponse(200, result.artifact.body, "application/octet-stream", (attachment, *headers))

    def _too_big(self, size: int, headers: tuple[tuple[str, str], ...]) -> AdminResponse:
        self.place.note("response size")
        stored = "; it goes to the store, see X-Profile-Key" if self.uploaded else ""
        most = format_size(limits.RESPONSE_BYTES)
        return error(
            413,
            f"profiling: the answer has {format_size(size)}, and {most} is the most that is sent to a client: "
            f"ask for fewer seconds{stored}",
            *headers,
        )


class Admin:
    """Answers requests for one profiler, which is made when somebody who may first needs it."""

    def __init__(self, settings: Settings, profiler: Callable[[], Profiler]) -> None:
        self._settings = settings
        self._profiler = profiler

    def answer(self, request: AdminRequest) -> AdminResponse | Awaited:
        """Does not wait, and raises nothing: what fails in here is answered and logged."""
        try:
            refused = refusal(request, self._settings)
            return refused if refused is not None else self._route(request)
        except RuntimeError as conflict:
            return error(409, f"profiling: {conflict}")
        except Exception as failure:
            self._settings.logger.exception("profiling: %s could not be answered", request.path[:80])
            return error(500, f"profiling: failed ({type(failure).__name__}); the log says why")

    def _route(self, request: AdminRequest) -> AdminResponse | Awaited:
        if names_token(request, self._settings):
            return error(400, "profiling: PROFILE_TOKEN belongs in the Authorization header and nowhere else")
        name = request.path[len(PREFIX) :]
        allowed = "POST" if name[1:] in SWITCHES else "GET"
        if request.method != allowed:
            return error(405, f"profiling: {request.method[:20]} is not allowed: use {allowed}", ("Allow", allowed))
        if name == "":
            return error(308, "profiling: see /debug/pprof/", ("Location", f"{_link(request.root)}{PREFIX}/"))
        kind = _ALIASES.get(name[1:], name[1:])
        if kind in CAPTURES:
            return self._capture(kind, request)
        route = self._routes().get(kind)
        if route is None:
            return error(404, f"profiling: there is no such profile: there are {_names()}")
        return route(request)

    def _routes(self) -> Mapping[str, Callable[[AdminRequest], AdminResponse | Awaited]]:
        return {
            "": self._index,
            "cmdline": self._cmdline,
            "metrics": self._metrics,
            **dict.fromkeys(SWITCHES, self._switch),
        }

    def _index(self, request: AdminRequest) -> AdminResponse:
        try:
            wanted = parse_index_format(request.query)
        except QueryError as bad:
            return error(400, f"profiling: {bad}")
        profiler = self._profiler()
        status = profiler.status
        if wanted == "json":
            return state_response(status)
        page = index_page(status, sorted(CAPTURES), self._workers(profiler))
        return AdminResponse(200, page.encode(), "text/html; charset=utf-8")

    def _cmdline(self, request: AdminRequest) -> AdminResponse:
        shown = shown_command_line(sys.orig_argv, self._settings.token)
        return AdminResponse(200, "\x00".join(shown).encode("utf-8", "replace"))

    def _metrics(self, request: AdminRequest) -> Awaited:
        accept = ", ".join(request.all("accept"))

        def scrape() -> AdminResponse:
            # prometheus_client takes as long to load as many a request.
            try:
                with THIS_PROCESS.imports.underway():
                    from profiling_middleware.metrics import exposition
            except ModuleNotFoundError as missing:
                if missing.name != "prometheus_client":
                    raise
                return error(501, "profiling: metrics need prometheus_client: pip install prometheus_client")
            body, content_type = exposition(self._profiler(), accept)
            return AdminResponse(200, body, content_type)

        return Later(scrape, self._settings.logger)

    def _switch(self, request: AdminRequest) -> AdminResponse | Awaited:
        refused = switch_refusal(request, self._settings)
        if refused is not None:
            return refused
        name = request.path[len(PREFIX) + 1 :]
        return Later(lambda: switch(self._profiler(), name), self._settings.logger)

    def _capture(self, kind: str, request: AdminRequest) -> AdminResponse | Awaited:
        default = min(_DEFAULT_TRACE_SECONDS if kind == "trace" else _DEFAULT_SECONDS, self._settings.max_seconds)
        try:
            query = parse_capture_query(request.query, kind, max_seconds=self._settings.max_seconds)
        except QueryError as bad:
            return error(400, f"profiling: {bad}")
        profiler = self._profiler()
        wait = query.wait and request.can_wait
        uploaded = query.upload and profiler.uploads
        if not wait and not uploaded:
            return _nowhere_to_go(query)
        try:
            seconds = None if query.seconds is None and profiler.collects(kind) else query.seconds or default
            if query.last is not None and not profiler.keeps_flight:
                return error(409, f"profiling: last = {query.last:g}: {NO_FLIGHT}")
            with profiler.limits.admit(waits=wait, uploads=uploaded) as place:
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
        except LimitMet as met:
            return error(429, f"profiling: {met}", ("Retry-After", str(math.ceil(met.retry_after))))
        except NoSuchWorker as missing:
            return error(404, f"profiling: {missing}")
        except TooManyCaptures:
            profiler.limits.note("captures at once")
            message = f"profiling: {MAX_ON_DEMAND} captures on demand run already: try again when one has ended"
            return error(429, message, ("Retry-After", "10"))
        recording.result.add_done_callback(partial(_take_back, place))
        if wait:
            return Pending(recording, uploaded, place, self._settings.logger)
        key = own_key(recording.info)
        return AdminResponse(202, f"{key}\n".encode(), headers=capture_headers(recording, uploaded=True))

    def _workers(self, profiler: Profiler) -> Sequence[Worker]:
        try:
            return profiler.workers()
        except OSError as failure:
            self._settings.logger.warning("profiling: the workers cannot be listed: %s", failure)
            return ()


def _take_back(place: Place, result: Future[Result]) -> None:
    if isinstance(result.exception(), CaptureCancelled | QueueFull):
        place.nothing_stored()


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


def _link(root: str) -> str:
    """A path on this server: two slashes at its beginning would name another one."""
    return f"/{quote(root.strip('/'), errors='replace')}".rstrip("/")


def _names() -> str:
    return ", ".join((*sorted(CAPTURES), "profile", "cmdline", "metrics"))
