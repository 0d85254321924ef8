"""Intervals that are as wide as the measurements scatter, and figures made from pairs of slices."""

from __future__ import annotations

import random
import statistics

import pytest

from benchmarks.bootstrap import bootstrap
from benchmarks.service_cost import Round, Slice, cpu_ratio, latency_ratio, more


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


LATENCIES = tuple(0.001 * number for number in range(1, 51))


def taken(ms: float, *, slow: float = 1.0) -> Slice:
    return Slice(ms, ms / 5, tuple(slow * each for each in LATENCIES), 0)


def taken_beside(cost: float, generator: random.Random, *, slow: float = 1.0) -> Round:
    """One service is a tenth slower than the other, and the machine has another speed in each turn."""

    def turn(on: float, off: float) -> tuple[Slice, Slice]:
        speed = generator.uniform(3, 6)
        return (
            taken(cost * on * speed * generator.gauss(1, 0.02), slow=slow),
            taken(off * speed * generator.gauss(1, 0.02)),
        )

    (first_on, second_off), (second_on, first_off) = turn(1.0, 1.1), turn(1.1, 1.0)
    return Round((first_on, second_on), (first_off, second_off))


def test_a_service_that_pays_is_told_from_one_that_does_not() -> None:
    generator = random.Random(3)
    costly, free = ([taken_beside(cost, generator) for _ in range(60)] for cost in (1.02, 1.0))

    interval = bootstrap(costly, cpu_ratio, resamples=300)
    assert interval.low > 1.005
    assert interval.value == pytest.approx(1.02, abs=0.01)
    interval = bootstrap(free, cpu_ratio, resamples=300)
    assert interval.low < 1.0 < interval.high


def test_what_a_request_takes_more_is_told_in_microseconds() -> None:
    rounds = [
        Round((taken(2.1), taken(3.3)), (taken(2.0), taken(3.0))),
        Round((taken(2), taken(2)), (taken(2), taken(2))),
    ]

    assert more(rounds, lambda one: one.cpu_ms) == pytest.approx(100)
    assert more(rounds, lambda one: one.loop_ms) == pytest.approx(20)


def test_latencies_are_pooled_and_compared_at_the_same_share() -> None:
    generator = random.Random(5)
    rounds = [taken_beside(1, generator, slow=1.5) for _ in range(10)]

    assert latency_ratio(rounds, 0.99) == pytest.approx(1.5)
    assert latency_ratio(rounds, 0.5) == pytest.approx(1.5)
    # One answer of 1,000 was slow: the 99th percentile does not hear of it, the largest does.
    one_slow = [taken_beside(1, generator) for _ in range(10)]
    first, second = one_slow[0].on
    one_slow[0] = one_slow[0]._replace(on=(first._replace(latencies=(*first.latencies[:-1], 9.0)), second))
    assert latency_ratio(one_slow, 0.99) == pytest.approx(1.0)
    assert latency_ratio(one_slow, 1.0) == pytest.approx(180.0)
