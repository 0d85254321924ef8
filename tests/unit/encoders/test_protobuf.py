"""The wire format, against the real protobuf package."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiling_middleware.encoders.protobuf import integer, message, packed, varint

INT64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, 127, 128, -1, 2**63 - 1, -(2**63)]))
with_message = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, b"\x00"),
        (1, b"\x01"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (150, b"\x96\x01"),  # the example of the protobuf guide
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
        (2**63 - 1, b"\xff" * 8 + b"\x7f"),
        (2**64 - 1, b"\xff" * 9 + b"\x01"),
        (-1, b"\xff" * 9 + b"\x01"),
        (-2, b"\xfe" + b"\xff" * 8 + b"\x01"),
        (-(2**63), b"\x80" * 9 + b"\x01"),
    ],
)
def test_a_varint_is_base_128_with_the_least_significant_group_first(number: int, encoded: bytes) -> None:
    assert varint(number) == encoded


@with_message
@given(INT64)
def test_any_int64_is_read_back_by_protobuf(profile_message: type[Any], number: int) -> None:
    assert profile_message.FromString(integer(9, number)).time_nanos == number


@with_message
@given(INT64)
def test_an_integer_is_written_as_protobuf_writes_it(profile_message: type[Any], number: int) -> None:
    assert integer(12, number) == profile_message(period=number).SerializeToString()


@with_message
@given(st.lists(INT64, max_size=30))
def test_packed_integers_are_written_as_protobuf_writes_them(profile_message: type[Any], numbers: list[int]) -> None:
    assert packed(13, numbers) == profile_message(comment=numbers).SerializeToString()


@with_message
@given(st.lists(st.text(max_size=300), max_size=5))
def test_strings_are_written_as_protobuf_writes_them(profile_message: type[Any], texts: list[str]) -> None:
    written = b"".join(message(6, text.encode()) for text in texts)

    assert written == profile_message(string_table=texts).SerializeToString()


def test_a_field_number_above_15_takes_two_bytes() -> None:
    assert integer(16, 1) == b"\x80\x01\x01"


def test_a_zero_is_not_written_but_an_empty_message_is() -> None:
    assert (integer(9, 0), packed(13, []), message(6, b"")) == (b"", b"", b"2\x00")
