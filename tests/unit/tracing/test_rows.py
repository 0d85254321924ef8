"""Nobody shares a row."""

from __future__ import annotations

import sys
import threading

import pytest

from profiling_middleware.tracing.rows import NO_ROW, Rows


def test_rows_are_numbered_and_used_again() -> None:
    rows = Rows()
    assert [rows.take() for _ in range(3)] == [0, 1, 2]
    rows.give_back(1)
    assert [rows.take() for _ in range(2)] == [1, 3]


def test_there_is_a_bounded_number_of_them() -> None:
    rows = Rows(limit=2)
    assert [rows.take() for _ in range(4)] == [0, 1, NO_ROW, NO_ROW]
    rows.give_back(NO_ROW)
    assert rows.take() == NO_ROW
    rows.give_back(0)
    rows.give_back(NO_ROW)
    assert [rows.take() for _ in range(2)] == [0, NO_ROW]


@pytest.mark.parametrize("limit", [3, 1000])
def test_threads_never_have_the_same_row_at_once(limit: int, deadline: float) -> None:
    rows, taken, twice = Rows(limit), [0] * limit, []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work() -> None:
        for _ in range(2_000):
            row = rows.take()
            if row != NO_ROW:
                taken[row] += 1
                if taken[row] != 1:
                    twice.append(row)
                taken[row] -= 1
            rows.give_back(row)

    threads = [threading.Thread(target=work) for _ in range(6)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(deadline)
    finally:
        sys.setswitchinterval(interval)
    assert twice == []
    assert sorted(rows.take() for _ in range(limit)) == list(range(limit))
