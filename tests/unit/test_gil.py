"""Giving way to the service's threads."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from profiling_middleware.gil import giving_way


@pytest.fixture(autouse=True)
def usual_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


def test_within_the_block_the_gil_changes_hands_after_half_a_millisecond() -> None:
    with giving_way():
        assert sys.getswitchinterval() == pytest.approx(0.0005)

    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_an_error_puts_the_interval_back_too() -> None:
    with pytest.raises(ZeroDivisionError), giving_way():
        _ = 1 / 0

    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_blocks_may_be_nested() -> None:
    with giving_way():
        with giving_way():
            pass
        assert sys.getswitchinterval() == pytest.approx(0.0005)

    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_blocks_of_two_threads_that_overlap_leave_the_usual_interval() -> None:
    one, other = giving_way(), giving_way()

    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    other.__exit__(None, None, None)

    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_a_shorter_interval_of_the_service_is_left_alone() -> None:
    sys.setswitchinterval(0.0001)

    with giving_way():
        assert sys.getswitchinterval() == pytest.approx(0.0001)

    assert sys.getswitchinterval() == pytest.approx(0.0001)


def test_what_the_service_sets_meanwhile_stays() -> None:
    with giving_way():
        sys.setswitchinterval(0.02)

    assert sys.getswitchinterval() == pytest.approx(0.02)
