"""Block and mutex profiles: where threads waited, and who made others wait."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from profiling_middleware.captures.collector import Collected, Collector, Sums, profile_samples
from profiling_middleware.captures.comments import cost, identity
from profiling_middleware.captures.sources import Sources
from profiling_middleware.captures.wall import looks_a_second
from profiling_middleware.model import CaptureInfo, Profile, ValueType

_CONTENTIONS, _DELAY = ValueType("contentions", "count"), ValueType("delay", "nanoseconds")

_LOOKS = "waits for anything but a lock are seen by looks: their delay is time, their contentions count looks"


class ContentionCapture:
    """What was collected: from `begin` to `end` by a collector of its own, or all that a standing one has by then."""

    def __init__(self, sources: Sources, seconds: float, choose: Callable[[Collected], Sums]) -> None:
        """With a standing collector the profile is cumulative; `choose` picks the kind out of what was collected."""
        self._sources, self._engine = sources, sources.engine
        self._choose = choose
        self._own: Collector | None = None
        standing = sources.standing
        if standing is None:
            self._own = standing = Collector(looks_a_second(seconds), sources.engine.report())
        self._collector = standing

    def begin(self) -> None:
        """Starts to collect, if nobody does."""
        if self._own is not None:
            self._sources.attach(self._own)

    def cancel(self) -> None:
        """Stops; nothing is kept."""
        if self._own is not None:
            self._sources.detach(self._own)

    def end(self, info: CaptureInfo) -> Profile:
        """Stops, and returns what was collected."""
        limits = _LOOKS, *self._sources.limits
        if self._own is not None:
            self._sources.detach(self._own)
        else:
            self._sources.flush()
        collected = self._collector.collected()
        report = self._engine.report().since(self._collector.began)
        return Profile(
            info=info,
            sample_types=(_CONTENTIONS, _DELAY),
            period_type=_CONTENTIONS,
            period=1,
            duration_ns=collected.lasted_ns,
            samples=profile_samples(self._choose(collected)),
            comments=(
                *identity(info),
                self._since(collected),
                *cost(self._engine, report, collected.lasted_ns),
                *(
                    [f"dropped: the stacks of {collected.overflowed} contentions, summed under <other stacks>"]
                    * bool(collected.overflowed)
                ),
                *(f"limit: {limit}" for limit in limits),
            ),
        )

    def _since(self, collected: Collected) -> str:
        began = datetime.fromtimestamp(collected.began_ns // 1_000_000_000, tz=UTC)
        kind = "difference" if self._own is not None else "cumulative"
        return f"collected: {kind}, since {began:%Y-%m-%dT%H:%M:%SZ}"
