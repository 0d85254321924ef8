"""The governor: what the profiler costs stays under its share."""

from __future__ import annotations

import pytest

from profiling_middleware.sampling.governor import Governor

SECOND = 1_000_000_000


class Profiler:
    """Costs `price` of a core at full rate, and tells the governor once a second."""

    def __init__(self, governor: Governor) -> None:
        self._governor = governor
        self._now, self._cost_ns = 100.0, 5 * SECOND
        governor.begin(self._now, self._cost_ns)

    def run(self, price: float, seconds: float = 1.0) -> bool:
        """Whether the intervals changed afterwards."""
        self._now += seconds
        self._cost_ns += int(price / self._governor.stretch * seconds * SECOND)
        return self._governor.changes(self._now, self._cost_ns)


@pytest.fixture
def governor() -> Governor:
    return Governor(0.01)


@pytest.fixture
def profiler(governor: Governor) -> Profiler:
    return Profiler(governor)


def test_what_costs_less_than_it_may_runs_at_full_rate(governor: Governor, profiler: Profiler) -> None:
    assert not any(profiler.run(0.009) for _ in range(10))
    assert governor.stretch == 1.0


def test_what_costs_more_is_stretched_at_once_to_what_it_may_cost(governor: Governor, profiler: Profiler) -> None:
    assert profiler.run(0.05)
    assert governor.stretch == pytest.approx(5.0)
    assert not profiler.run(0.05)
    assert governor.stretch == pytest.approx(5.0)


def test_a_load_that_falls_gets_its_rate_back_by_halves(governor: Governor, profiler: Profiler) -> None:
    profiler.run(0.08)
    stretches = []
    while profiler.run(0.001):
        stretches.append(governor.stretch)

    assert stretches == [pytest.approx(4.0), pytest.approx(2.0), 1.0]


def test_what_was_spent_before_the_beginning_does_not_count(governor: Governor) -> None:
    governor.begin(100.0, 1_000 * SECOND)

    assert not governor.changes(101.0, 1_000 * SECOND + SECOND // 1_000)
    assert governor.stretch == 1.0


def test_a_new_capture_begins_with_the_stretch_of_the_last_one(governor: Governor, profiler: Profiler) -> None:
    profiler.run(0.05)
    governor.begin(900.0, 0)

    assert governor.stretch == pytest.approx(5.0)


def test_it_judges_no_less_than_a_second(governor: Governor, profiler: Profiler) -> None:
    """A moment of work is no rate: the end of a capture costs milliseconds within one."""
    assert not any(profiler.run(1.0, seconds=0.09) for _ in range(11))
    assert governor.stretch == 1.0
    assert profiler.run(1.0, seconds=0.09)


def test_small_changes_are_left_alone(governor: Governor, profiler: Profiler) -> None:
    profiler.run(0.05)

    assert not profiler.run(0.06)
    assert not profiler.run(0.0405)
    assert governor.stretch == pytest.approx(5.0)
    assert profiler.run(0.07)


def test_the_full_rate_comes_back_however_small_the_step(governor: Governor, profiler: Profiler) -> None:
    profiler.run(0.0126)
    assert governor.stretch == pytest.approx(1.26)

    assert profiler.run(0.0099)
    assert governor.stretch == 1.0


def test_it_is_never_stretched_without_end(governor: Governor, profiler: Profiler) -> None:
    profiler.run(1_000.0)

    assert governor.stretch == 100.0


def test_a_clock_that_stood_still_changes_nothing(governor: Governor, profiler: Profiler) -> None:
    profiler.run(0.05)
    stretch = governor.stretch

    assert not profiler.run(0.05, seconds=0.0)
    assert governor.stretch == stretch


@pytest.mark.parametrize("price", [0.011, 0.02, 0.3, 0.9])
def test_however_dear_the_share_is_kept_after_the_first_second(
    governor: Governor, profiler: Profiler, price: float
) -> None:
    for _ in range(20):
        profiler.run(price)

    # Within the change that is too small to be made.
    assert price / governor.stretch <= 0.01 * 1.25
