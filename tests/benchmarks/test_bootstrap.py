"""Intervals that are as wide as the measurements scatter, and figures made from pairs of slices."""

from __future__ import annotations

import random
import statistics

import pytest

from benchmarks.bootstrap import bootstrap
from benchmarks.service_cost import Pair, Slice, cpu_ratio, cpu_ratio_by_yardstick, latency_ratio


def test_what_does_not_scatter_has_no_width() -> None:
    assert bootstrap([3.0] * 20) == (3.0, 3.0, 3.0)


def test_the_interval_is_about_as_wide_as_theory_says() -> None:
    generator = random.Random(1)
    values = [generator.gauss(10, 2) for _ in range(200)]

    interval = bootstrap(values, statistics.fmean, resamples=500)

    # 1.96 standard errors each way, the error being 2 / sqrt(200).
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 2 / 200**0.5, rel=0.2)
    assert interval.low < interval.value < interval.high


def test_the_interval_contains_the_truth_about_as_often_as_it_claims() -> None:
    generator = random.Random(2)
    hits = 0
    for number in range(100):
        values = [generator.gauss(0, 1) for _ in range(40)]
        interval = bootstrap(values, statistics.fmean, confidence=0.8, resamples=100, seed=number)
        hits += interval.low <= 0 <= interval.high

    assert 65 <= hits <= 92


def test_the_same_values_give_the_same_interval_and_none_give_an_error() -> None:
    values = [1.0, 2.0, 5.0]

    assert bootstrap(values) == bootstrap(values)
    with pytest.raises(ValueError, match="nothing"):
        bootstrap([])


def pair(on_ms: float, off_ms: float, *, slow: float = 1.0) -> Pair:
    latencies = tuple(0.001 * number for number in range(1, 51))
    on = Slice(on_ms, tuple(slow * each for each in latencies), 0)
    return Pair(on, Slice(off_ms, latencies, 0), 0.0)


def test_a_service_that_pays_is_told_from_one_that_does_not() -> None:
    generator = random.Random(3)
    # The machine is sometimes fast, sometimes slow; the two slices of a pair share it.
    speeds = [generator.uniform(3, 6) for _ in range(60)]
    costly = [pair(1.05 * speed * generator.gauss(1, 0.02), speed) for speed in speeds]
    free = [pair(speed * generator.gauss(1, 0.02), speed) for speed in speeds]

    assert bootstrap(costly, cpu_ratio, resamples=300).low > 1.03
    interval = bootstrap(free, cpu_ratio, resamples=300)
    assert interval.low < 1.0 < interval.high


def test_latencies_are_pooled_and_compared_at_the_same_share() -> None:
    pairs = [pair(1, 1, slow=1.5) for _ in range(10)]

    assert latency_ratio(pairs, 0.99) == pytest.approx(1.5)
    assert latency_ratio(pairs, 0.5) == pytest.approx(1.5)
    # One answer of 500 was slow: the 99th percentile does not hear of it, the largest does.
    one_slow = [pair(1, 1) for _ in range(10)]
    one_slow[0] = one_slow[0]._replace(on=Slice(1, (*one_slow[0].on.latencies[:-1], 9.0), 0))
    assert latency_ratio(one_slow, 0.99) == pytest.approx(1.0)
    assert latency_ratio(one_slow, 1.0) == pytest.approx(180.0)


def test_a_yardstick_tells_a_slow_core_from_a_costly_profiler() -> None:
    generator = random.Random(4)
    pairs = []
    for _ in range(40):
        on_speed, off_speed = generator.uniform(3, 6), generator.uniform(3, 6)
        on, off = pair(1.02 * on_speed, off_speed)[:2]
        pairs.append(Pair(on._replace(piece_ms=on_speed / 20), off._replace(piece_ms=off_speed / 20), 0.0))

    assert cpu_ratio_by_yardstick(pairs) == pytest.approx(1.02)
    assert abs(cpu_ratio(pairs) - 1.02) > 0.001
