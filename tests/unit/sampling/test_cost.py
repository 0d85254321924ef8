"""What sampling costs, as it is noted."""

from __future__ import annotations

import pytest

from profiling_middleware.sampling.cost import CostMeter


def test_the_share_is_that_of_the_time_that_was_noted() -> None:
    meter = CostMeter()
    meter.begin(5_000_000)

    meter.note(100.0, 5_000_000)
    assert meter.share is None
    meter.note(102.0, 25_000_000)

    assert meter.share == 0.01
    assert meter.total_ns == 20_000_000


def test_the_share_is_that_of_the_last_minute() -> None:
    meter = CostMeter()
    meter.begin(0)

    for second in range(200):  # 10 ms a second first, then 1 ms
        meter.note(second, min(second, 100) * 10_000_000 + max(0, second - 100) * 1_000_000)

    assert meter.share is not None
    assert abs(meter.share - 0.001) < 1e-9


def test_it_is_noted_once_a_second() -> None:
    meter = CostMeter()

    assert meter.is_due(10.0)
    meter.note(10.0, 0)
    assert not meter.is_due(10.9)
    assert meter.is_due(11.0)


def test_a_new_engine_goes_on_where_the_one_before_it_ended() -> None:
    meter = CostMeter()
    meter.begin(0)
    meter.note(1.0, 30_000_000)

    meter.begin(7_000_000)
    meter.note(2.0, 8_000_000)

    assert meter.total_ns == 31_000_000
    assert meter.share is None  # the time between the two engines is nobody's


def test_while_nothing_is_sampled_there_is_no_share() -> None:
    meter = CostMeter()
    meter.begin(0)
    meter.note(1.0, 0)
    meter.note(3.0, 20_000_000)

    meter.rest()

    assert (meter.share, meter.total_ns) == (None, 20_000_000)


def test_a_count_that_goes_back_takes_nothing_away() -> None:
    meter = CostMeter()
    meter.begin(10)

    meter.note(1.0, 5)

    assert meter.total_ns == 0


def test_however_often_it_is_noted_a_bounded_number_is_kept() -> None:
    meter = CostMeter()
    meter.begin(0)
    for tick in range(200_000):
        meter.note(tick / 1_000, tick * 10_000)  # a hundredth of a core
    assert len(meter._noted) < 150
    assert meter.share == pytest.approx(0.01, rel=0.05)
