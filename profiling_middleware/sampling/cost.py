"""What sampling costs: noted on the timer's thread, since an engine counts the CPU time of whoever asks it."""

from __future__ import annotations

from collections import deque

_NOTE_SECONDS = 1.0
_SHARE_SECONDS = 60.0


class CostMeter:
    """Adds up what all engines of a process have used, one after the other. Any thread may read it."""

    def __init__(self) -> None:
        self.total_ns = 0
        """CPU time of sampling so far."""
        self.share: float | None = None
        """Of one core, in the last minute; None while nothing is sampled, and in its first second."""
        self._engine_ns = 0
        self._noted: deque[tuple[float, int]] = deque()

    def begin(self, engine_ns: int) -> None:
        """There is a new engine, whose own count says `engine_ns`."""
        self._engine_ns = engine_ns
        self.rest()

    def is_due(self, now: float) -> bool:
        """Whether it is time to note; `now` is in seconds, on any clock that does not jump."""
        return not self._noted or now - self._noted[-1][0] >= _NOTE_SECONDS

    def note(self, now: float, engine_ns: int) -> None:
        """The engine's own count says `engine_ns` now."""
        self.total_ns += max(0, engine_ns - self._engine_ns)
        self._engine_ns = engine_ns
        if len(self._noted) > 1 and now - self._noted[-2][0] < _NOTE_SECONDS:
            self._noted.pop()  # however many captures end, there is one a second
        self._noted.append((now, self.total_ns))
        while len(self._noted) > 2 and self._noted[0][0] < now - _SHARE_SECONDS:
            self._noted.popleft()
        since, before_ns = self._noted[0]
        if now - since >= _NOTE_SECONDS:
            self.share = (self.total_ns - before_ns) / 1e9 / (now - since)

    def rest(self) -> None:
        """Nothing is sampled from now on."""
        self._noted.clear()
        self.share = None
