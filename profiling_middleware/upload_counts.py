"""What became of the captures since the process started."""

from __future__ import annotations

from dataclasses import dataclass

MAX_STORED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCapture:
    """One capture that is in the store."""

    key: str
    kind: str
    size: int
    """Bytes."""
    stored_ns: int
    """UTC, in nanoseconds since 1970."""


@dataclass(slots=True)
class UploadCounts:
    """taken + adopted = stored + dropped + those that wait."""

    taken: int = 0
    adopted: int = 0
    """Left by processes that are no more."""
    stored: int = 0
    stored_bytes: int = 0
    failures: int = 0
    dropped: int = 0
    last_stored: tuple[StoredCapture, ...] = ()
    """Up to ten, the newest first."""
    last_failure: str = ""

    @property
    def last_key(self) -> str:
        """Of the capture that was stored last; empty when none was."""
        return self.last_stored[0].key if self.last_stored else ""

    def note_stored(self, capture: StoredCapture) -> None:
        """It is in the store. One thread calls this; what another reads is always whole."""
        self.stored += 1
        self.stored_bytes += capture.size
        self.last_stored = (capture, *self.last_stored)[:MAX_STORED]
