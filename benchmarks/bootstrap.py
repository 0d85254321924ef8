"""How far a figure from repeated measurements may be off: the bootstrap."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

Value = TypeVar("Value")


class Interval(NamedTuple):
    """A figure and the bounds it has, as far as the measurements tell."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 3, unit: str = "") -> str:
        """As in `1.007 (0.998 to 1.015)`."""
        return f"{self.value:.{digits}f}{unit} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def bootstrap(
    values: Sequence[Value],
    figure: Callable[[Sequence[Value]], float] = statistics.median,  # type: ignore[assignment]
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """The figure of the values, and between which bounds it lies in `confidence` of the resamples.

    A resample draws as many values with replacement; the bounds are percentiles of their figures. Values that belong
    together (the two sides of a pair, the latencies of one slice) are to be one value. ValueError without any.
    """
    if not values:
        raise ValueError("there is nothing to draw from")
    generator = random.Random(seed)
    figures = sorted(figure(generator.choices(values, k=len(values))) for _ in range(resamples))
    outside = (1 - confidence) / 2
    low = figures[round(outside * (resamples - 1))]
    high = figures[round((1 - outside) * (resamples - 1))]
    return Interval(figure(values), low, high)
