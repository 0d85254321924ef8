"""Packets in the order of their moments: the two that write them write the same."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling_middleware.encoders.packets import Packets, PythonPackets, new_packets
from profiling_middleware.encoders.protobuf import read_fields

FLOW_BASE = 5 << 32
SEQUENCE = b"\x50\x01"
# TracePacket
PACKET, TIMESTAMP, CLOCK = 1, 8, 58


def c_packets(flow_base: int = FLOW_BASE) -> Packets:
    """Those written in C; skips where they are not to be had."""
    try:
        from profiling_middleware.encoders import _packets
    except ImportError:
        if os.environ.get("REQUIRE_ALL_TOOLS") == "1" and not os.environ.get("PROFILING_WITHOUT_EXTENSION"):
            pytest.fail("encoders/_packets.c has not been built (REQUIRE_ALL_TOOLS=1)")
        pytest.skip("encoders/_packets.c has not been built")
    return _packets.Packets(flow_base)


def python_packets(flow_base: int = FLOW_BASE) -> Packets:
    return PythonPackets(flow_base)


@pytest.fixture(params=[c_packets, python_packets], ids=["C", "Python"])
def packets(request: pytest.FixtureRequest) -> Packets:
    """Each in turn, empty."""
    made: Packets = request.param()
    return made


# Near each other, so that many fall into the same microsecond.
times = st.integers(1, 20_000) | st.integers(1, 2**62)
content = st.binary(max_size=300)
flows = st.lists(st.integers(0, 2**32 - 1), max_size=3).map(tuple)
slices = st.tuples(st.just("slice"), content, content, times, st.just(0) | times, flows, flows)
moments = st.tuples(st.just("moment"), times, content)


@given(st.lists(slices | moments, max_size=40), st.none() | st.integers(0, 2**40), content)
def test_both_write_the_same(added: list[tuple[Any, ...]], base: int | None, sequence: bytes) -> None:
    one, other = c_packets(), python_packets()
    for call, *arguments in added:
        for packets in (one, other):
            getattr(packets, call)(*arguments)

    assert len(one) == len(other)
    assert one.first_us() == other.first_us()
    base = other.first_us() if base is None else base
    assert one.take(base, sequence) == other.take(base, sequence)
    assert len(one) == len(other) == 0


def test_the_one_in_c_is_taken_where_there_is_one() -> None:
    assert type(new_packets(FLOW_BASE)) is type(c_packets())


def test_without_it_python_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "profiling_middleware.encoders._packets", None)
    monkeypatch.delattr("profiling_middleware.encoders._packets", raising=False)

    assert type(new_packets(FLOW_BASE)) is PythonPackets


def read(written: bytes) -> list[list[tuple[int, int | bytes]]]:
    """The fields of each packet."""
    packets = list(read_fields(written))
    assert {number for number, _ in packets} <= {PACKET}
    return [list(read_fields(packet)) for _, packet in packets if isinstance(packet, bytes)]


EVENT = b"\x5a\x00"


def test_each_says_how_much_later_it_is(packets: Packets) -> None:
    for time_us in (1_005, 1_000, 1_002):
        packets.moment(time_us * 1_000 + 999, EVENT)

    assert packets.first_us() == 1_000
    assert [dict(packet)[TIMESTAMP] for packet in read(packets.take(1_000, SEQUENCE))] == [0, 2, 3]


def test_what_is_earlier_says_when_by_itself(packets: Packets) -> None:
    packets.moment(7_000, EVENT)
    packets.moment(9_000, EVENT)

    earlier, later = read(packets.take(8, SEQUENCE))
    assert earlier[:2] == [(TIMESTAMP, 7_000), (CLOCK, 3)]
    assert later[:1] == [(TIMESTAMP, 1)]


def test_what_was_taken_is_gone(packets: Packets) -> None:
    packets.slice(b"", EVENT, 1_000, 2_000, (), ())
    assert len(packets) == 2
    assert packets.take(1, SEQUENCE)

    assert len(packets) == 0
    assert packets.first_us() == 0
    assert packets.take(1, SEQUENCE) == b""


@pytest.mark.parametrize(
    "add",
    [
        lambda one: one.slice("text", EVENT, 1, 2, (), ()),
        lambda one: one.slice(b"", None, 1, 2, (), ()),
        lambda one: one.slice(b"", EVENT, 1.5, 2, (), ()),
        lambda one: one.slice(b"", EVENT, 1, 2**63, (), ()),
        lambda one: one.slice(b"", EVENT, 1, 2, [1], ()),
        lambda one: one.slice(b"", EVENT, 1, 2, (1, "two"), ()),
        lambda one: one.slice(b"", EVENT, 1, 2, (1,), (-1,)),
        lambda one: one.moment(1, "text"),
        lambda one: one.take(0, "text"),
        lambda one: type(one)(),
        lambda one: type(one)(FLOW_BASE, 2),
        lambda one: type(one)(flow_base=FLOW_BASE),
    ],
)
def test_what_makes_no_sense_is_refused_and_adds_nothing(add: Callable[[Packets], object]) -> None:
    packets = c_packets()

    with pytest.raises((TypeError, OverflowError)):
        add(packets)
    assert len(packets) == 0


def test_bytes_are_held_until_they_are_written_and_not_longer() -> None:
    begin, end = bytes(bytearray(100)), bytes(bytearray(101))
    before = sys.getrefcount(begin), sys.getrefcount(end)
    taken, dropped = c_packets(), c_packets()
    for packets in (taken, dropped):
        for _ in range(1_000):
            packets.slice(begin, end, 1_000, 2_000, (1, 2), (3,))
    assert (sys.getrefcount(begin), sys.getrefcount(end)) == (before[0] + 2_000, before[1] + 2_000)

    taken.take(1, SEQUENCE)
    del dropped, packets

    assert (sys.getrefcount(begin), sys.getrefcount(end)) == before


def test_what_is_returned_is_counted() -> None:
    """Headers of a Python in which None is immortal take no reference: each call would bring 3.11 nearer to none."""
    packets = c_packets()
    before = sys.getrefcount(None)
    for number in range(2_000):
        packets.moment(number, EVENT)
        packets.slice(b"", EVENT, number, number + 1, (), ())

    assert sys.getrefcount(None) > before - 1_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_memory_does_not_grow_with_the_chunks() -> None:
    packets = c_packets()
    resident = []
    for chunk in range(300):
        for number in range(1_000):
            packets.slice(b"x" * 50, EVENT, number, number + 5_000, (number,), ())
        assert len(packets.take(0, SEQUENCE)) > 50_000
        if chunk in (50, 299):
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]))
    assert resident[1] - resident[0] < 500  # pages


def test_who_comes_in_between_is_refused() -> None:
    """What is written is written without the GIL."""
    packets, seen, done = c_packets(), set(), threading.Event()

    def come_in_between(add: Callable[[], object]) -> None:
        while not done.is_set():
            try:
                add()
            except RuntimeError as error:
                seen.add(f"{add.__name__}: {error}")

    def moment() -> None:
        packets.moment(1_000, EVENT)

    threads = [threading.Thread(target=come_in_between, args=(add,)) for add in (moment, packets.first_us)]
    for thread in threads:
        thread.start()
    give_up = time.monotonic() + 60
    while len(seen) < len(threads) and time.monotonic() < give_up:
        for number in range(100_000):
            packets.moment(100_000_000 - number * 1_000, EVENT)
        packets.take(0, SEQUENCE)
    done.set()
    for thread in threads:
        thread.join()
    assert seen == {f"{name}: packets are being written by another thread" for name in ("moment", "first_us")}
