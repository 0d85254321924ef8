"""What a function cost itself and with all that it called."""

from __future__ import annotations

import pytest

from sample_app.pprof_reader import Frame, PprofError, Profile, Sample, ValueType
from sample_app.pprof_top import Top, format_top, top_functions


def profile(*stacks: tuple[str, int]) -> Profile:
    return Profile(
        sample_types=(ValueType("samples", "count"), ValueType("cpu", "nanoseconds")),
        samples=tuple(
            Sample(tuple(Frame(name, "shop.py", 1) for name in stack.split(";")), (1, milliseconds * 1_000_000), {})
            for stack, milliseconds in stacks
        ),
        comments=(),
        period_type=None,
        period=0,
        time_ns=0,
        duration_ns=0,
        default_sample_type="cpu",
    )


def test_the_leaf_is_flat_and_its_callers_are_cumulative() -> None:
    tops = top_functions(profile(("price;main", 30), ("main", 10)), "cpu")

    assert tops == [Top("price", 30_000_000, 30_000_000), Top("main", 10_000_000, 40_000_000)]


def test_a_recursive_function_counts_once_a_sample() -> None:
    assert top_functions(profile(("walk;walk;main", 5)), "cpu")[0] == Top("walk", 5_000_000, 5_000_000)


def test_times_are_told_in_milliseconds_and_shares() -> None:
    table = format_top(profile(("price;main", 30), ("main", 10)), "cpu", count=1)

    assert table.splitlines()[1].split() == ["30ms", "75.0%", "30ms", "75.0%", "price"]
    assert len(table.splitlines()) == 2


def test_a_sample_type_that_is_not_there_is_named() -> None:
    with pytest.raises(PprofError, match="no sample type 'wall': there are samples, cpu"):
        format_top(profile(("main", 1)), "wall")
