"""The distance of two distributions and what chance makes of it, beside what they are by definition."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from benchmarks.truth.distance import chance_distance, shares, total_variation

TRUE = {"sixty": 60.0, "thirty": 30.0, "ten": 10.0}


def test_equal_shares_are_no_distance_apart_whatever_they_add_up_to() -> None:
    assert total_variation({name: 7 * amount for name, amount in TRUE.items()}, TRUE) == pytest.approx(0.0, abs=1e-12)


def test_what_stands_in_the_wrong_place_is_the_distance() -> None:
    assert total_variation({"sixty": 50.0, "thirty": 30.0, "ten": 20.0}, TRUE) == pytest.approx(0.1)
    assert total_variation({"sixty": 60.0, "thirty": 30.0, "never called": 10.0}, TRUE) == pytest.approx(0.1)


def test_nothing_in_common_and_nothing_at_all_are_as_far_away_as_can_be() -> None:
    assert total_variation({"never called": 1.0}, TRUE) == pytest.approx(1.0)
    assert total_variation({}, TRUE) == 1.0
    assert total_variation({"sixty": 0.0}, TRUE) == 1.0


def test_the_distance_is_the_same_in_both_directions() -> None:
    other = {"sixty": 10.0, "ten": 5.0, "elsewhere": 1.0}

    assert total_variation(other, TRUE) == pytest.approx(total_variation(TRUE, other))


def test_shares_add_up_to_one_and_nothing_has_none() -> None:
    assert math.fsum(shares(TRUE).values()) == pytest.approx(1.0)
    assert shares({}) == {}


@pytest.mark.parametrize("samples", [1, 2, 7, 10])
def test_the_chance_distance_is_the_mean_over_all_outcomes(samples: int) -> None:
    true = shares(TRUE)
    mean = 0.0
    for outcome in itertools.product(range(samples + 1), repeat=len(true)):
        if sum(outcome) == samples:
            counts = dict(zip(true, outcome, strict=True))
            ways = math.factorial(samples) / math.prod(map(math.factorial, outcome))
            likely = ways * math.prod(true[name] ** count for name, count in counts.items())
            mean += likely * total_variation(counts, true)

    assert chance_distance(TRUE, samples) == pytest.approx(mean)


def test_the_chance_distance_is_what_drawing_gives() -> None:
    generator = random.Random(0)
    names, weights = list(TRUE), list(TRUE.values())
    distances = []
    for _ in range(300):
        drawn = generator.choices(names, weights, k=600)
        distances.append(total_variation({name: drawn.count(name) for name in names}, TRUE))

    assert math.fsum(distances) / len(distances) == pytest.approx(chance_distance(TRUE, 600), rel=0.1)


def test_the_chance_distance_shrinks_with_the_root_of_the_samples() -> None:
    assert chance_distance(TRUE, 400) / chance_distance(TRUE, 40_000) == pytest.approx(10, rel=0.02)


def test_certainty_leaves_nothing_to_chance_and_no_sample_leaves_everything() -> None:
    assert chance_distance({"only": 3.0}, 10) == 0.0
    assert chance_distance(TRUE, 0) == 1.0
