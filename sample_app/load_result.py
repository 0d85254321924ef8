"""What a load saw, and how people are told."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PathResult:
    """One path: how often it was asked for, how often that failed, and how long the answers took."""

    path: str
    failures: int
    """Answers with a status of 400 or more, and requests without a whole answer."""
    latencies: tuple[float, ...]
    """Seconds of each answered request, sorted; from when it was due, so that waiting for a connection counts."""

    @property
    def requests(self) -> int:
        return len(self.latencies) + self.failures

    def percentile(self, share: float) -> float:
        """The latency that this share of the answers did not exceed; NaN without answers."""
        if not self.latencies:
            return math.nan
        return self.latencies[max(0, math.ceil(share * len(self.latencies)) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """A whole load."""

    seconds: float
    paths: tuple[PathResult, ...]
    skipped: int
    """Requests that were not sent, because too many were waiting when they were due."""
    first_failure: str | None

    @property
    def requests(self) -> int:
        return sum(path.requests for path in self.paths)

    @property
    def failures(self) -> int:
        return sum(path.failures for path in self.paths)


class LoadRecorder:
    """Collects what happens while a load runs."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._latencies: dict[str, list[float]] = {path: [] for path in paths}
        self._failures = dict.fromkeys(self._latencies, 0)
        self._skipped = 0
        self._first_failure: str | None = None

    def answered(self, path: str, seconds: float) -> None:
        self._latencies[path].append(seconds)

    def failed(self, path: str, reason: str) -> None:
        self._failures[path] += 1
        self._first_failure = self._first_failure or reason

    def skip(self) -> None:
        self._skipped += 1

    def result(self, seconds: float) -> LoadResult:
        """All of it, after that many seconds."""
        paths = tuple(
            PathResult(path=path, failures=self._failures[path], latencies=tuple(sorted(latencies)))
            for path, latencies in self._latencies.items()
        )
        return LoadResult(seconds=seconds, paths=paths, skipped=self._skipped, first_failure=self._first_failure)


def format_result(result: LoadResult) -> str:
    """A table with a line for each path, and the sums."""
    lines = [f"{'path':<12} {'requests':>9} {'failed':>7} {'p50 ms':>8} {'p99 ms':>8}"]
    lines += [
        f"{path.path:<12} {path.requests:>9} {path.failures:>7} "
        f"{_milliseconds(path.percentile(0.5)):>8} {_milliseconds(path.percentile(0.99)):>8}"
        for path in result.paths
    ]
    rate = result.requests / result.seconds if result.seconds else 0.0
    lines.append(f"{result.requests} requests in {result.seconds:.1f} s, {rate:.1f} a second")
    lines.append(f"{result.failures} failed, {result.skipped} not sent because too many were waiting")
    if result.first_failure is not None:
        lines.append(f"the first failure: {result.first_failure}")
    return "\n".join(lines)


def _milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1000:.1f}"
