"""Puts captures into the store, one after the other; what cannot be put now waits, on disk before it is first tried."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable

from profiling_middleware.lane import Lane
from profiling_middleware.last_failures import LastFailures
from profiling_middleware.model import Artifact
from profiling_middleware.stores import KeyTaken, Store, StoreError
from profiling_middleware.units import format_size
from profiling_middleware.upload_counts import StoredCapture, UploadCounts
from profiling_middleware.waiting.backlog import Backlog
from profiling_middleware.waiting.lost import Lost

_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 5.0, 300.0
# Workers that end leave captures to the others: so often it is looked for them, whenever a capture comes.
_ADOPT_SECONDS = 60.0

CallLater = Callable[[float, Callable[[], object]], object]
"""Runs an action after some seconds; from any thread."""


class Uploads:
    """The way to one store."""

    def __init__(self, store: Store, backlog: Backlog, logger: logging.Logger, call_later: CallLater) -> None:
        self.store = store
        self.counts = UploadCounts()
        self.failures = LastFailures()
        self._backlog = backlog
        self._logger = logger
        self._call_later = call_later
        self._lane = Lane("profiling-upload", 4, logger)
        self._failed_rounds = 0
        self._backing_off = False
        self._closing = False
        self._give_up_at: float | None = None
        self._given_up: set[str] = set()
        """What has failed in this round."""
        self._in_vain = False
        self._adopted_at: float | None = None

    @property
    def waiting(self) -> tuple[int, int]:
        """How many captures wait for the store, and their bytes."""
        return self._backlog.waiting

    @property
    def waiting_place(self) -> str:
        """Where they wait."""
        return self._backlog.place

    @property
    def spooled(self) -> tuple[int, int]:
        """How many of those that wait are on disk, and their bytes."""
        return self._backlog.spooled

    @property
    def spool_trouble(self) -> str | None:
        """Why the spool cannot be used; None when it can, or has not been tried yet."""
        return self._backlog.trouble

    def warm_up(self) -> None:
        """Makes the store's client now, so that the first put need not, and sees to what others have left."""
        self._lane.submit(self._warm_up)

    def add(self, artifact: Artifact) -> None:
        """Keeps a capture until it is in the store. For want of room the oldest ones are dropped and counted."""
        self.counts.taken += 1
        self._report_lost(self._backlog.add(artifact))
        if not self._backing_off:
            self._lane.submit(self._round)

    def finish(self, timeout: float) -> None:
        """Tries once more, for `timeout` seconds: what is not in the spool is given up then."""
        self._closing, self._give_up_at = True, time.monotonic() + timeout
        self._lane.release()
        self._lane.submit(self._last_round)
        finished = self._lane.drain(timeout)
        count, _size = self.waiting
        lost, place = self._backlog.close(), self._backlog.spool_place
        reason = "the store refused it" if finished and not self._is_over() else "the store did not answer in time"
        self._report_lost(one._replace(reason=f"{one.reason} and {reason}") for one in lost)
        if count > len(lost):
            self._logger.warning("profiling: %d captures wait in %s for the next start", count - len(lost), place)

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

    def abandon(self) -> None:
        """In a forked child: what waits is the parent's."""
        self._backlog.abandon()

    def _warm_up(self) -> None:
        try:
            self.store.warm_up()
        except StoreError as error:
            self._logger.error("profiling: %s is not ready: %s", self.store.place, error)
        self._round()

    def _adopt(self) -> None:
        now = time.monotonic()
        if self._adopted_at is not None and now - self._adopted_at < _ADOPT_SECONDS:
            return
        self._adopted_at = now
        adopted, lost = self._backlog.adopt()
        self.counts.adopted += adopted
        self._report_lost(lost)
        if adopted:
            self._logger.info("profiling: %d captures were left in %s", adopted, self._backlog.place)

    def _retry(self) -> None:
        self._backing_off = False
        self._lane.submit(self._round)

    def _round(self) -> None:
        """Puts what waits until one fails for a reason that the others would meet as well."""
        if self._backing_off and not self._closing:
            return
        if not self._closing:
            self._given_up.clear()
        elif not self._lane.has_thread:
            self._in_vain = True  # the process waits for each try, and what is in the spool is safe
        self._adopt()
        while not self._is_over() and (artifact := self._next()) is not None:
            started = time.monotonic()
            try:
                key = self._put(artifact)
            except Exception as error:
                safe = self._backlog.is_safe(artifact)
                self._failed(artifact, error, time.monotonic() - started)
                self._given_up.add(artifact.info.capture_id)
                is_its_own = isinstance(error, StoreError) and error.of_capture
                if not self._closing and not is_its_own:
                    break
                # What is in the spool need not try again; the others have no other chance.
                self._in_vain = self._in_vain or (self._closing and safe and not is_its_own)
            else:
                self._stored(artifact, key, time.monotonic() - started)

    def _last_round(self) -> None:
        # Whatever a round before this one has met: everything that would be lost gets its last try.
        self._given_up.clear()
        self._round()

    def _is_over(self) -> bool:
        """Whether the time is up: where there is no thread at exit, the process waits for each try."""
        return self._give_up_at is not None and time.monotonic() >= self._give_up_at

    def _next(self) -> Artifact | None:
        artifact, lost = self._backlog.take(safe=not self._in_vain)
        self._report_lost(lost)
        if artifact is not None and artifact.info.capture_id in self._given_up:
            self._report_lost(self._backlog.put_back(artifact))
            return None
        return artifact

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

    def _stored(self, artifact: Artifact, key: str, seconds: float) -> None:
        self._failed_rounds = 0
        stored = StoredCapture(key=key, kind=artifact.info.kind, size=len(artifact.body), stored_ns=time.time_ns())
        self.counts.note_stored(stored)
        self._backlog.done(artifact)  # counted before: whoever sees that nothing waits finds it among what is stored
        self._logger.info(
            "profiling: stored kind=%s key=%s bytes=%d seconds=%.3f in %s",
            artifact.info.kind,
            key,
            len(artifact.body),
            seconds,
            self.store.place,
        )

    def _failed(self, artifact: Artifact, error: Exception, seconds: float) -> None:
        self._report_lost(self._backlog.put_back(artifact))
        reason = self._reason(error)
        self.counts.failures += 1
        count, size = self.waiting
        retry = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2**self._failed_rounds) * random.uniform(0.5, 1)
        self._failed_rounds = min(self._failed_rounds + 1, 10)
        outlook = "the service stops" if self._closing else f"next try in {retry:.0f} s"
        self._logger.error(
            "profiling: NOT stored kind=%s key=%s bytes=%d seconds=%.3f in %s: %s; %d captures (%s) wait in %s, %s",
            artifact.info.kind,
            artifact.key,
            len(artifact.body),
            seconds,
            self.store.place,
            reason,
            count,
            format_size(size),
            self._backlog.place,
            outlook,
        )
        if not self._closing and not self._backing_off:
            self._backing_off = True
            self._call_later(retry, self._retry)

    def _reason(self, error: Exception) -> str:
        """What the log says; what only the operator can mend is explained once."""
        reason = str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
        known, self.counts.last_failure = reason == self.counts.last_failure, reason
        self.failures.note("upload", reason)
        if known and self._failed_rounds and isinstance(error, StoreError) and error.brief is not None:
            return f"{error.brief}, as before"
        return reason

    def _report_lost(self, lost: Iterable[Lost]) -> None:
        for one in lost:
            self.counts.dropped += 1
            self.failures.note("lost", one.reason)
            self._logger.error("profiling: LOST %s: %s", one.name, one.reason)
