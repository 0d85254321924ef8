"""Durations, sizes and shares."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling_middleware.units import (
    format_duration,
    format_size,
    format_time,
    parse_duration,
    parse_share,
    parse_size,
)

NANOSECONDS = {"ns": 1, "us": 10**3, "\u00b5s": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("5m", 300.0),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("1h2m3s4ms5us6ns", 3723.004005006),
        ("250ms", 0.25),
        ("10us", 1e-5),
        ("10\u00b5s", 1e-5),  # U+00B5, the micro sign
        ("10\u03bcs", 1e-5),  # U+03BC, the Greek letter: Go takes both
        ("7ns", 7e-9),
        ("0", 0.0),
        ("0s", 0.0),
        ("1m1m", 120.0),
        ("  5m ", 300.0),
    ],
)
def test_a_go_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "m",
        "5 m",
        "5x",
        "5d",
        "5M",
        "-5m",
        "+5m",
        "1h-30m",
        "1h30",
        ".",
        ".s",
        "1..5s",
        "1e3s",
        "five",
        "5m,",
        "5m 30s",
        "nan",
        "inf",
        "infs",
        "0x10s",
        "\uff15m",
        "\u0665m",
        "1_0s",
    ],
)
def test_what_go_does_not_read_as_a_duration_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write a number with a unit, such as 90s, 5m, 1h30m"):
        parse_duration(text)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(sorted(NANOSECONDS))), min_size=1, max_size=6))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)

    exact = sum(number * NANOSECONDS[unit] for number, unit in parts) / 1e9

    assert parse_duration(text) == pytest.approx(exact, rel=1e-9)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_refused_as_one(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        assert "is not a duration" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert seconds >= 0


@given(st.integers(0, 10**15))
def test_a_written_duration_is_read_back_to_the_six_digits_it_shows(nanoseconds: int) -> None:
    seconds = nanoseconds / 1e9

    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@given(st.integers(0, 10**6))
def test_whole_seconds_are_written_and_read_back_exactly(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (90, "1m30s"),
        (120, "2m"),
        (300, "5m"),
        (3600, "1h"),
        (5400, "1h30m"),
        (3723, "1h2m3s"),
        (0.25, "250ms"),
        (1.5, "1.5s"),
        (1, "1s"),
        (0, "0ms"),
    ],
)
def test_a_duration_is_written_in_its_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("500KB", 500_000),
        ("500 KB", 500_000),
        ("1.5MB", 1_500_000),
        ("2GB", 2_000_000_000),
        ("4KiB", 4096),
        ("64MiB", 67_108_864),
        ("1.5MiB", 1_572_864),
        ("1GiB", 1_073_741_824),
        (" 1MiB ", 1_048_576),
    ],
)
def test_a_size_is_read_as_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MiB",
        "-1MiB",
        "1TiB",
        "1mib",
        "64 M",
        "64M",
        "64Mi",
        "1e6",
        "1 0",
        "1.MiB",
        ".5MiB",
        "\uff16\uff14MiB",
        "inf",
        "9" * 400,
        "9" * 308 + "GiB",
    ],
)
def test_what_is_no_size_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size: write bytes or a number with a unit, such as 64MiB"):
        parse_size(text)


@given(st.integers(0, 2**50), st.sampled_from([("", 1), ("KB", 10**3), ("KiB", 2**10), ("MiB", 2**20), ("GB", 10**9)]))
def test_a_whole_size_is_exact(number: int, unit: tuple[str, int]) -> None:
    name, factor = unit

    assert parse_size(f"{number}{name}") == pytest.approx(number * factor, rel=1e-15, abs=0)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (49_357, "48.2 KiB"), (2**20, "1.0 MiB"), (2**24, "16.0 MiB")],
)
def test_a_size_is_written_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("text", "share"),
    [("1%", 0.01), ("0.5%", 0.005), ("100%", 1.0), ("0.01", 0.01), ("1", 1.0), (" 2 % ", 0.02), ("0", 0.0)],
)
def test_a_share_is_read_as_a_fraction(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize("text", ["", "%", "1%%", "-1%", "1 percent", "1e-2", "nan", "inf", ".5", "1,5%", "\uff11%"])
def test_what_is_no_share_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a share: write a percentage such as 1% or a fraction such as 0\.01"):
        parse_share(text)


@given(st.integers(0, 10_000))
def test_a_percentage_and_its_fraction_are_the_same_share(basis_points: int) -> None:
    assert parse_share(f"{basis_points / 100}%") == pytest.approx(parse_share(f"{basis_points / 10_000}"), rel=1e-12)


@pytest.mark.parametrize(
    ("utc_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_769_441_400_250_999_999, "2026-01-26T15:30:00.250Z"),
        (1_769_441_400_999_999_999, "2026-01-26T15:30:00.999Z"),
    ],
)
def test_a_time_is_written_in_utc(utc_ns: int, text: str) -> None:
    assert format_time(utc_ns) == text
