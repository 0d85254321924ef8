"""Who waits now for what, where code in Python measures it: the counterpart of csrc/waiters.c."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from profiling_middleware.model import Contention, Stack


@dataclass(slots=True)
class _Waited:
    waiters: int = 0
    until_ns: int = 0
    waited_ns: int = 0
    """Of all waiters together up to `until_ns`, since it was taken last."""
    released_ns: int = 0
    release: Contention | None = None
    at: Stack | None = None
    """Where whoever came last waits."""

    def advance(self, now: int) -> None:
        self.waited_ns += self.waiters * (now - self.until_ns)
        self.until_ns = now


class WaitTable:
    """By a key that is one's own for as long as somebody waits. Times in nanoseconds."""

    def __init__(self) -> None:
        self._waited: dict[object, _Waited] = {}
        self.waited: Container[object] = self._waited
        """Holds a key as long as somebody waits, and is false while nobody waits for anything."""

    def begin(self, key: object, at: Stack, now: int) -> None:
        """Somebody begins to wait."""
        entry = self._waited.get(key)
        if entry is None:
            entry = self._waited[key] = _Waited(until_ns=now)
        entry.advance(now)
        entry.waiters += 1
        entry.at = at

    def end(self, key: object, began: int, now: int, *, elsewhere: int = 0) -> Contention | None:
        """Its wait is over; returns what it waited after the release that ended it, which that has caused, too.

        Less what it has waited `elsewhere` since.
        """
        entry = self._waited.get(key)
        if entry is None:
            return None
        entry.advance(now)
        entry.waiters -= 1
        if entry.waiters == 0:
            del self._waited[key]
        if entry.released_ns <= began:
            return None
        late = now - entry.released_ns
        entry.waited_ns = max(0, entry.waited_ns - late)
        release = entry.release
        if release is None:
            return None
        return release._replace(times=0.0, delay_ns=release.times * max(0, late - elsewhere))

    def take(self, key: object, now: int) -> tuple[int, Stack | None]:
        """How long all who wait have waited since this was asked last, and where one of them is."""
        entry = self._waited.get(key)
        if entry is None:
            return 0, None
        entry.advance(now)
        waited, entry.waited_ns, entry.released_ns, entry.release = entry.waited_ns, 0, now, None
        return waited, entry.at

    def released(self, key: object, release: Contention) -> None:
        """Keeps the release for which `take` was asked."""
        entry = self._waited.get(key)
        if entry is not None:
            entry.release = release

    def clear(self) -> None:
        """Nobody waits for anything."""
        self._waited.clear()
