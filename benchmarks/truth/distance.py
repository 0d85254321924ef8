"""How far a measured distribution is from the true one, and how far mere chance would have put it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def shares(amounts: Mapping[Key, float]) -> dict[Key, float]:
    """Each amount as a share of all of them. Empty when there is nothing."""
    total = math.fsum(amounts.values())
    return {key: amount / total for key, amount in amounts.items()} if total > 0 else {}


def total_variation(measured: Mapping[Key, float], true: Mapping[Key, float]) -> float:
    """The total-variation distance of two distributions, from amounts that need not add up to 1.

    Half the sum of |measured share - true share|: the part of all CPU time that stands in the wrong place, from 0 to 1.
    Nothing measured at all is as far away as can be: 1.
    """
    one, other = shares(measured), shares(true)
    if not one or not other:
        return 1.0
    return math.fsum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in {*one, *other}) / 2


def chance_distance(true: Mapping[Key, float], samples: int) -> float:
    """The distance that `samples` independent samples from the true distribution have on average: the floor.

    A multinomial sample's counts X_i are binomial (n, p_i), so by linearity of the mean
    E[distance] = 1/2 sum E|X_i / n - p_i| = 1/(2n) sum E|X_i - n p_i|, and each term is known exactly (De Moivre):
    E|X - np| = 2 m C(n, m) p^m (1 - p)^(n - m + 1) with m = floor(np) + 1.

    No lower bound: samples at even distances scatter less than independent ones, samples of unequal weight more.
    1 when there is no sample.
    """
    if samples <= 0:
        return 1.0
    return math.fsum(_mean_deviation(samples, share) for share in shares(true).values()) / (2 * samples)


def _mean_deviation(n: int, p: float) -> float:
    """E|X - np| of a binomial X."""
    if not 0.0 < p < 1.0:
        return 0.0
    m = min(n, math.floor(n * p) + 1)
    choose = math.lgamma(n + 1) - math.lgamma(m + 1) - math.lgamma(n - m + 1)
    return 2 * m * math.exp(choose + m * math.log(p) + (n - m + 1) * math.log1p(-p))
