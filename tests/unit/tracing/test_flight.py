"""The newest chunks, and no others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracing_kit import SECOND

from profiling_middleware.tracing.flight import FLIGHT_SECONDS, FlightRecorder

Chunk = tuple[bytes, int, int]


class Copy:
    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def write(self, chunk: bytes, began_ns: int, ended_ns: int) -> None:
        self.chunks.append((chunk, began_ns, ended_ns))


def fly(flight: FlightRecorder, seconds: range, size: int = 10) -> list[Chunk]:
    """Writes a chunk for each second."""
    chunks = [(bytes([second % 256]) * size, second * SECOND, (second + 1) * SECOND) for second in seconds]
    for chunk in chunks:
        flight.write(*chunk)
    return chunks


def copied(flight: FlightRecorder, since_ns: int = -1) -> list[Chunk]:
    copy = Copy()
    flight.copy_to(copy, since_ns)
    return copy.chunks


def test_it_keeps_so_many_seconds() -> None:
    """Whole chunks: those that ended no longer ago than that."""
    flight = FlightRecorder(seconds=5)
    chunks = fly(flight, range(20))
    assert copied(flight) == chunks[-6:]
    later = fly(flight, range(23, 24))
    assert copied(flight) == [*chunks[-2:], *later]
    fly(flight, range(100, 101))
    assert len(copied(flight)) == 1
    assert FLIGHT_SECONDS == 30


def test_it_keeps_so_many_bytes() -> None:
    flight = FlightRecorder(seconds=1_000, most_bytes=100)
    chunks = fly(flight, range(30), size=30)
    assert copied(flight) == chunks[-3:]
    small = fly(flight, range(30, 37), size=1)
    assert copied(flight) == [*chunks[-3:], *small]
    small += fly(flight, range(37, 42), size=1)
    assert copied(flight) == [*chunks[-2:], *small]
    # One that has no room at all leaves none to the others.
    fly(flight, range(42, 43), size=101)
    assert copied(flight) == []
    after = fly(flight, range(43, 44), size=100)
    assert copied(flight) == after


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=40))
def test_whatever_comes_the_newest_are_kept_within_both_bounds(coming: list[tuple[int, int]]) -> None:
    flight = FlightRecorder(seconds=10, most_bytes=100)
    now, written = 0, []
    for size, seconds in coming:
        written.append((bytes(size), now * SECOND, (now + seconds) * SECOND))
        now += seconds
        flight.write(*written[-1])
        kept = copied(flight)
        assert kept == written[len(written) - len(kept) :]
        assert sum(len(chunk) for chunk, _, _ in kept) == flight._bytes <= 100
        assert all(ended >= (now - 10) * SECOND for _, _, ended in kept)
        # A chunk goes only if it is too old, or if there was no room for it and all that came since.
        for number, (_, _, ended) in enumerate(written[: len(written) - len(kept)]):
            sizes = sum(len(chunk) for chunk, _, _ in written[number:])
            assert ended < (now - 10) * SECOND or sizes > 100


@pytest.mark.parametrize(
    ("since", "count"), [(0, 5), (1 * SECOND - 1, 5), (1 * SECOND, 4), (4.5 * SECOND, 1), (5 * SECOND, 0)]
)
def test_those_that_ended_after_a_moment_are_copied(since: float, count: int) -> None:
    flight = FlightRecorder()
    chunks = fly(flight, range(5))
    assert copied(flight, int(since)) == chunks[5 - count :]
    # They are still there.
    assert copied(flight) == chunks


def test_what_it_has_no_room_for_is_counted_as_long_as_it_would_be_there() -> None:
    flight = FlightRecorder(seconds=10, most_bytes=100)
    fly(flight, range(5), size=40)
    assert [flight.losses(second * SECOND).left_out for second in (0, 1, 2, 3, 9)] == [3, 2, 1, 0, 0]
    fly(flight, range(5, 6), size=101)
    assert flight.losses(0).left_out == 6
    fly(flight, range(14, 15), size=1)  # it ends at 15, and what ended before 5 is old
    assert flight.losses(0).left_out == 2
    fly(flight, range(40, 41), size=1)
    assert flight.losses(0) == (0, 0)
    assert (flight._bytes, len(flight._left_out)) == (1, 0)


def test_events_that_were_dropped_are_those_since_a_moment() -> None:
    total = 1_000
    flight = FlightRecorder(lambda: total, seconds=10, most_bytes=100)
    for second in range(5):
        total += 10 ** (second % 2)
        fly(flight, range(second, second + 1), size=40)
    total += 100
    # Of the first second 1, then 10, 1, 10, 1; and 100 that are in no chunk yet.
    assert [flight.losses(second * SECOND).dropped for second in (0, 1, 2, 4, 5, 9)] == [123, 122, 112, 101, 100, 100]
    fly(flight, range(12, 13))  # it ends at 13: the first two are old
    assert [flight.losses(second * SECOND).dropped for second in (0, 2, 3)] == [112, 112, 111]
