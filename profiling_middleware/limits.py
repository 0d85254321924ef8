"""How much requests for captures may take of a process, and how often they have met which limit."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

CLIENTS = 8
"""So many wait for a capture, or read one, at once."""

UPLOADS_AN_HOUR = 120
"""So many captures that were asked for over HTTP go to the store within an hour; windows do not count."""

RESPONSE_BYTES = 256 * 1024 * 1024
"""A capture that is bigger is not sent to a client."""

READ_SECONDS = 300.0
"""So long a client may take to read a capture."""

_HOUR = 3600.0

Clock = Callable[[], float]
"""Seconds; it never goes back."""


class LimitMet(Exception):  # noqa: N818 - it says what is the case
    """No more for now; the message says what the limit is, `retry_after` in how many seconds to try again."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Limits:
    """The limits of one process. From any thread."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._clients = 0
        self._uploads: deque[float] = deque()
        self._met: Counter[str] = Counter()

    @property
    def met(self) -> Mapping[str, int]:
        """How often each limit was met that has been."""
        with self._lock:
            return dict(self._met)

    def note(self, limit: str) -> None:
        """One was met, such as `captures at once`."""
        with self._lock:
            self._met[limit] += 1

    def admit(self, *, waits: bool, uploads: bool) -> Place:
        """Lets a request in that waits for its capture, or has it stored, or both. Raises LimitMet."""
        with self._lock:
            now = self._clock()
            while self._uploads and self._uploads[0] <= now - _HOUR:
                self._uploads.popleft()
            if waits and self._clients >= CLIENTS:
                self._met["captures at once"] += 1
                raise LimitMet(
                    f"{CLIENTS} captures on demand run already or are being read: try again when one has ended", 10.0
                )
            if uploads and len(self._uploads) >= UPLOADS_AN_HOUR:
                self._met["uploads an hour"] += 1
                raise LimitMet(
                    f"{UPLOADS_AN_HOUR} captures on demand have gone to the store within an hour, which is the most: "
                    "upload=0 keeps one out of it, or try again later",
                    self._uploads[0] + _HOUR - now,
                )
            self._clients += waits
            if uploads:
                self._uploads.append(now)
            return Place(self, waits, now if uploads else None)

    def _leave(self) -> None:
        with self._lock:
            self._clients -= 1

    def _take_back(self, upload: float) -> None:
        with self._lock:
            if upload in self._uploads:
                self._uploads.remove(upload)


class Place:
    """What one request has of the limits. `with` gives all of it back if what it is for does not begin."""

    def __init__(self, limits: Limits, waits: bool, upload: float | None) -> None:
        self._limits = limits
        self._waits = waits
        self._upload = upload

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.leave()
            self.nothing_stored()

    def note(self, limit: str) -> None:
        """See `Limits.note`."""
        self._limits.note(limit)

    def leave(self) -> None:
        """The client has its answer, or has left; the second time nothing happens."""
        waits, self._waits = self._waits, False
        if waits:
            self._limits._leave()

    def nothing_stored(self) -> None:
        """The capture does not go to the store after all."""
        upload, self._upload = self._upload, None
        if upload is not None:
            self._limits._take_back(upload)
