"""Keeps what the profiler costs under the share of a core that it may cost."""

from __future__ import annotations

_SECONDS = 1.0
_MOST = 100.0
# A change of less is not worth setting a thousand timers anew.
_LEAST_CHANGE = 1.25


class Governor:
    """Says by how much the sampling intervals are to be stretched."""

    def __init__(self, max_overhead: float) -> None:
        """`max_overhead` is a share of one core."""
        self._max_overhead = max_overhead
        self.stretch = 1.0
        self._since = 0.0
        self._cost_ns = 0

    def begin(self, now: float, cost_ns: int) -> None:
        """Counts from here: what was spent before is history. The stretch stays: the load is likely the same."""
        self._since, self._cost_ns = now, cost_ns

    def changes(self, now: float, cost_ns: int) -> bool:
        """Looks at what was spent (`cost_ns`, counted from any beginning); whether `stretch` is another one now."""
        seconds = now - self._since
        if seconds < _SECONDS:
            return False
        share = (cost_ns - self._cost_ns) / 1e9 / seconds
        self.begin(now, cost_ns)
        wanted = min(_MOST, max(1.0, self.stretch * share / self._max_overhead))
        # Up at once, down by halves: a load that comes in waves must not be met at full rate each time.
        if wanted < self.stretch:
            wanted = max(wanted, self.stretch / 2)
        if 1 / _LEAST_CHANGE < wanted / self.stretch < _LEAST_CHANGE and wanted != 1.0:
            return False
        changed = wanted != self.stretch
        self.stretch = wanted
        return changed
