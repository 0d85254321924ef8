"""The only road to a store: queue → encode → gzip → put, for periodic and on-demand captures alike.

Two lanes, so that an on-demand answer does not wait behind a put that hangs: one encodes, one uploads.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from profiling_middleware.encoders.pprof import encode_pprof
from profiling_middleware.encoders.views import render_view
from profiling_middleware.gil import giving_way
from profiling_middleware.keys import own_key, shared_key
from profiling_middleware.lane import Lane
from profiling_middleware.last_failures import LastFailures
from profiling_middleware.model import Artifact, Body, CaptureInfo, Profile, Trace
from profiling_middleware.uploads import Uploads

_QUEUED_PROFILES = 64
# While Python encodes, nothing else of the service runs: let go of the GIL long before the switch interval would.
_WORK_SECONDS, _REST_SECONDS = 0.0002, 0.001
# For the last chunks of a trace, which are being written.
_TRACE_SECONDS = 30.0
_GZIP_LEVEL = 6
_GZIP_FORMAT = 31  # zlib's window bits for a gzip header, whose time stamp zlib leaves 0: equal input, equal bytes


class QueueFull(Exception):  # noqa: N818 - it says what is the case
    """More captures wait to be encoded than the pipeline holds; this one was dropped and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to become of a capture."""

    upload: bool
    own_key_only: bool
    """On demand the key must be known, and true, before the put: the one nobody else can hold."""
    view: str | None = None
    """Render the capture for people as well (a name in `encoders.views.VIEWS`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A capture that went through the pipeline."""

    artifact: Artifact
    view: bytes | None = field(default=None, repr=False)


class Pipeline:
    """Takes finished captures and answers with the future of their bytes."""

    def __init__(self, uploads: Uploads | None, logger: logging.Logger) -> None:
        self._uploads = uploads
        self._logger = logger
        self._lane = Lane("profiling-encode", _QUEUED_PROFILES, logger)
        self._hurry = False
        self.dropped = 0
        self.failures = LastFailures()

    def upload_to(self, uploads: Uploads) -> None:
        """Where captures go from now on. From any thread."""
        self._uploads = uploads

    def submit(self, recorded: Profile | Trace, request: Request, result: Future[Result]) -> None:
        """Queues a capture. `result` gets its bytes once they are encoded, or the reason why not."""
        self.submit_made(recorded.info, lambda: recorded, request, result)

    def submit_made(
        self, info: CaptureInfo, make: Callable[[], Profile | Trace], request: Request, result: Future[Result]
    ) -> None:
        """As `submit`, of what `make` returns when its turn comes: there it may take a while."""

        def work() -> None:
            try:
                recorded = make()
                artifact = self._encode(recorded, request)
            except Exception as error:
                self.dropped += 1
                self._fail(info, "encoded", error, result)
                return
            if request.upload and self._uploads is not None:
                self._uploads.add(artifact)
            try:
                view = self._render(recorded, request.view) if request.view and isinstance(recorded, Profile) else None
            except Exception as error:
                self._fail(info, f"rendered as {request.view}", error, result)
            else:
                result.set_result(Result(artifact=artifact, view=view))

        if not self._lane.submit(work):
            self.dropped += 1
            self.failures.note("capture", f"{info.kind}: too many captures wait to be encoded")
            self._logger.error(
                "profiling: kind=%s capture=%s dropped: %d captures wait to be encoded already",
                info.kind,
                info.capture_id,
                _QUEUED_PROFILES,
            )
            result.set_exception(QueueFull(f"{_QUEUED_PROFILES} captures wait to be encoded"))

    def drain(self, timeout: float) -> bool:
        """The last step: encodes without pauses what is queued. False when `timeout` seconds were not enough."""
        self._hurry = True
        self._lane.release()
        return self._lane.drain(timeout)

    def keep_thread(self) -> None:
        """See `Lane.keep`."""
        self._lane.keep()

    def release_thread(self) -> None:
        """See `Lane.release`."""
        self._lane.release()

    def pause(self, timeout: float) -> None:
        """Before a fork; see `Lane.pause`."""
        self._lane.pause(timeout)

    def resume(self) -> None:
        """After a fork, in the parent."""
        self._lane.resume()

    def _fail(self, info: CaptureInfo, step: str, error: Exception, result: Future[Result]) -> None:
        self.failures.note("capture", f"{info.kind}: not {step} ({type(error).__name__}); the log says why")
        self._logger.error("profiling: kind=%s capture=%s not %s", info.kind, info.capture_id, step, exc_info=error)
        result.set_exception(error)

    def _encode(self, recorded: Profile | Trace, request: Request) -> Artifact:
        unique = own_key(recorded.info)
        return Artifact(
            info=recorded.info,
            key=unique if request.own_key_only else shared_key(recorded.info),
            own_key=unique,
            body=self._body(recorded),
        )

    def _body(self, recorded: Profile | Trace) -> Body:
        if isinstance(recorded, Trace):  # encoded and compressed while it was recorded
            return recorded.body.result(_TRACE_SECONDS)
        return self._gzip(encode_pprof(recorded))

    @staticmethod
    def _render(profile: Profile, view: str) -> bytes:
        with giving_way():
            return render_view(profile, view)

    def _gzip(self, chunks: Iterable[bytes]) -> bytes:
        compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
        body: list[bytes] = []
        pending: list[bytes] = []
        since = time.perf_counter()
        for chunk in chunks:
            pending.append(chunk)
            if time.perf_counter() - since > _WORK_SECONDS:
                body.append(compressor.compress(b"".join(pending)))
                pending.clear()
                if not self._hurry:
                    time.sleep(_REST_SECONDS)
                since = time.perf_counter()
        body += (compressor.compress(b"".join(pending)), compressor.flush())
        return b"".join(body)
