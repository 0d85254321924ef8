"""The last things that went wrong, each once, with how often: what an operator wants to see before the log."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

MAX_REASONS = 10
_LONGEST_REASON = 500
# A proxy or an endpoint may be given with a user and a password, and botocore's messages repeat it.
_CREDENTIALS = re.compile(r"://[^/@\s]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One reason, and when it was met last."""

    what: str
    """What failed: upload, lost (a capture that will never be in the store), or capture."""
    reason: str
    times: int
    last_ns: int
    """UTC, in nanoseconds since 1970."""


class LastFailures:
    """The newest reasons. From any thread."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        """`now_ns` is UTC, in nanoseconds since 1970."""
        self._now_ns = now_ns
        self._known: dict[tuple[str, str], Failure] = {}
        self._lock = threading.Lock()

    def note(self, what: str, reason: str) -> None:
        """It has happened now; the reason is cut to 500 characters, and has no password of a URL."""
        reason = _CREDENTIALS.sub("://…@", reason)[:_LONGEST_REASON]
        with self._lock:
            known = self._known.pop((what, reason), None) or Failure(what=what, reason=reason, times=0, last_ns=0)
            self._known[what, reason] = replace(known, times=known.times + 1, last_ns=self._now_ns())
            if len(self._known) > MAX_REASONS:
                del self._known[next(iter(self._known))]

    @property
    def last(self) -> tuple[Failure, ...]:
        """Up to ten reasons, the newest first."""
        with self._lock:
            return tuple(reversed(self._known.values()))


def newest(*groups: tuple[Failure, ...]) -> tuple[Failure, ...]:
    """The newest reasons of several, in their order."""
    together = (failure for group in groups for failure in group)
    return tuple(sorted(together, key=lambda failure: failure.last_ns, reverse=True)[:MAX_REASONS])
