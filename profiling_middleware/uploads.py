"""Puts artifacts into the store, one after the other; what cannot be put now waits in bounded memory.

A spool on disk takes the place of that memory when it exists: `add`, `_next` and `_return` are its seams.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from profiling_middleware.lane import Lane
from profiling_middleware.model import Artifact
from profiling_middleware.stores import KeyTaken, Store, StoreError
from profiling_middleware.units import format_size

MAX_WAITING_BYTES = 16 * 1024 * 1024
"""In memory."""
MAX_WAITING_FILE_BYTES = 64 * 1024 * 1024
"""In files: of traces that are too big for memory."""
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 5.0, 300.0

CallLater = Callable[[float, Callable[[], object]], object]
"""Runs an action after some seconds; from any thread."""


@dataclass(slots=True)
class UploadCounts:
    """What became of the artifacts since the process started."""

    stored: int = 0
    stored_bytes: int = 0
    failures: int = 0
    dropped: int = 0
    last_key: str = ""
    last_failure: str = ""


class Uploads:
    """The way to one store, with its memory of what still has to go there."""

    def __init__(
        self,
        store: Store,
        logger: logging.Logger,
        call_later: CallLater,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self.store = store
        self.counts = UploadCounts()
        self._logger = logger
        self._call_later = call_later
        self._max_waiting_bytes = max_waiting_bytes
        self._lane = Lane("profiling-upload", 4, logger)
        self._lock = threading.Lock()
        self._waiting: deque[Artifact] = deque()
        self._failed_rounds = 0
        self._backing_off = False
        self._closing = False
        self._given_up: set[str] = set()

    @property
    def waiting(self) -> tuple[int, int]:
        """How many captures wait for the store, and their bytes."""
        with self._lock:
            return len(self._waiting), sum(len(artifact.body) for artifact in self._waiting)

    def warm_up(self) -> None:
        """Makes the store's client now, so that the first put need not."""
        self._lane.submit(self._warm_up)

    def add(self, artifact: Artifact) -> None:
        """Queues an artifact. The oldest ones are dropped, logged and counted when memory would exceed its bound."""
        with self._lock:
            self._waiting.append(artifact)
            dropped = self._trim()
        for lost in dropped:
            self._report_drop(lost, "memory for waiting captures is full")
        if not self._backing_off:
            self._lane.submit(self._round)

    def finish(self, timeout: float) -> None:
        """Tries everything once more and gives up what is left after `timeout` seconds."""
        self._closing = True
        self._lane.release()
        self._lane.submit(self._last_round)
        finished = self._lane.drain(timeout)
        with self._lock:
            lost = list(self._waiting)
            self._waiting.clear()
        reason = "the store refused it" if finished else "the store did not answer in time"
        for artifact in lost:
            self._report_drop(artifact, f"the service stops and {reason}")

    def keep_thread(self) -> None:
        """See `Lane.keep`."""
        self._lane.keep()

    def pause(self, timeout: float) -> None:
        """Before a fork; see `Lane.pause`."""
        self._lane.pause(timeout)

    def resume(self) -> None:
        """After a fork, in the parent."""
        self._lane.resume()

    def _warm_up(self) -> None:
        try:
            self.store.warm_up()
        except StoreError as error:
            self._logger.error("profiling: %s is not ready: %s", self.store.place, error)

    def _retry(self) -> None:
        self._backing_off = False
        self._lane.submit(self._round)

    def _round(self) -> None:
        """Puts what waits until one fails: the others would only meet the same fault. At the end, all get a try."""
        if self._backing_off and not self._closing:
            return
        while (artifact := self._next()) is not None and artifact.info.capture_id not in self._given_up:
            started = time.monotonic()
            try:
                key = self._put(artifact)
            except Exception as error:
                self._failed(artifact, error, time.monotonic() - started)
                if not self._closing:
                    return
                self._given_up.add(artifact.info.capture_id)
                continue
            self._stored(artifact, key, time.monotonic() - started)

    def _last_round(self) -> None:
        # Whatever a round before this one has met: everything gets its last try.
        self._given_up.clear()
        self._round()

    def _put(self, artifact: Artifact) -> str:
        try:
            self.store.put(artifact.key, artifact.body, artifact.info)
        except KeyTaken:
            if artifact.key == artifact.own_key:
                return artifact.key  # Only this capture has this key: an earlier answer was lost.
        else:
            return artifact.key
        with contextlib.suppress(KeyTaken):
            self.store.put(artifact.own_key, artifact.body, artifact.info)
        return artifact.own_key

    def _next(self) -> Artifact | None:
        with self._lock:
            return self._waiting[0] if self._waiting else None

    def _remove(self, artifact: Artifact) -> None:
        # It may have been dropped meanwhile to make room, or given up by finish().
        with self._lock:
            if artifact in self._waiting:
                self._waiting.remove(artifact)

    def _return(self, artifact: Artifact) -> None:
        # To the end: if the fault is this capture's own, it must not stop the others.
        with self._lock:
            if artifact in self._waiting:
                self._waiting.remove(artifact)
                self._waiting.append(artifact)

    def _stored(self, artifact: Artifact, key: str, seconds: float) -> None:
        self._remove(artifact)
        self._failed_rounds = 0
        self.counts.stored += 1
        self.counts.stored_bytes += len(artifact.body)
        self.counts.last_key = key
        self._logger.info(
            "profiling: stored kind=%s key=%s bytes=%d seconds=%.3f in %s",
            artifact.info.kind,
            key,
            len(artifact.body),
            seconds,
            self.store.place,
        )

    def _failed(self, artifact: Artifact, error: Exception, seconds: float) -> None:
        self._return(artifact)
        reason = str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
        self.counts.failures += 1
        self.counts.last_failure = reason
        count, size = self.waiting
        retry = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2**self._failed_rounds) * random.uniform(0.5, 1)
        self._failed_rounds = min(self._failed_rounds + 1, 10)
        outlook = "the service stops" if self._closing else f"next try in {retry:.0f} s"
        self._logger.error(
            "profiling: NOT stored kind=%s key=%s bytes=%d seconds=%.3f in %s: %s; %d captures (%s) wait in memory, %s",
            artifact.info.kind,
            artifact.key,
            len(artifact.body),
            seconds,
            self.store.place,
            reason,
            count,
            format_size(size),
            outlook,
        )
        if not self._closing:
            self._backing_off = True
            self._call_later(retry, self._retry)

    def _trim(self) -> list[Artifact]:
        newest = self._waiting[-1]
        in_memory = isinstance(newest.body, bytes)
        most = self._max_waiting_bytes if in_memory else MAX_WAITING_FILE_BYTES
        if len(newest.body) > most:
            self._waiting.pop()
            return [newest]
        alike = [artifact for artifact in self._waiting if isinstance(artifact.body, bytes) is in_memory]
        size = sum(len(artifact.body) for artifact in alike)
        dropped = []
        while size > most:
            oldest = min(alike, key=lambda artifact: artifact.info.started_ns)
            alike.remove(oldest)
            self._waiting.remove(oldest)
            size -= len(oldest.body)
            dropped.append(oldest)
        return dropped

    def _report_drop(self, artifact: Artifact, reason: str) -> None:
        self.counts.dropped += 1
        self._logger.error(
            "profiling: LOST kind=%s key=%s bytes=%d: %s",
            artifact.info.kind,
            artifact.key,
            len(artifact.body),
            reason,
        )
