"""Measuring beside other work: both sides in turn in one run, and the median of the ratios within each turn."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """The median of repeated measurements, and where the middle 80 % of them lie."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """As in `1.07 [1.03 1.12]`."""
        return f"{self.median:.{digits}f} [{self.low:.{digits}f} {self.high:.{digits}f}]"


def spread(values: Sequence[float]) -> Spread:
    """Needs two values at least."""
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return Spread(statistics.median(values), tenths[0], tenths[-1])


def ratios(values: Sequence[float], base: Sequence[float]) -> Spread:
    """Value by base, turn by turn: what slows a whole turn down is in both and falls out."""
    return spread([value / below for value, below in zip(values, base, strict=True)])


def differences(values: Sequence[float], base: Sequence[float]) -> Spread:
    """Value less base, turn by turn."""
    return spread([value - below for value, below in zip(values, base, strict=True)])


def verdict(value: float, target: float) -> str:
    """Whether a measured value keeps its target."""
    return f"target {target:g}: {'kept' if value <= target else 'MISSED'}"


def machine() -> str:
    """One line about where the figures come from."""
    load = os.getloadavg()[0]
    return f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}"
