"""Perfetto's UI shows a trace as it was asked to."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from profiling_middleware.encoders.protobuf import integer, message
from trace_kit.perfetto import MissingToolError, program
from trace_kit.show import address, bounds, serve, take_picture
from trace_kit.trace_processor import TraceProcessor

START, END = 5_000_000_000, 9_000_000_000

LOOK = """
const {workspace, timeline} = app.trace;
const {start, duration} = timeline.visibleWindow;
const seen = [
  workspace.flatTracks.filter(track => track.hasChildren).map(track => `${track.name}: ${track.expanded}`),
  workspace.pinnedTracks.map(track => track.name),
  [Number(start.integral), duration],
];
if (JSON.stringify(seen) !== JSON.stringify(EXPECTED)) throw new Error(JSON.stringify(seen));
"""
"""Evaluated in the page: fails unless it shows what is EXPECTED."""


def packet(*content: bytes) -> bytes:
    """A TracePacket of one sequence, in the Trace."""
    return message(1, b"".join(content) + integer(10, 1))


def read(url: str) -> bytes:
    """The body of an answer."""
    with urlopen(url) as answer:
        return bytes(answer.read())


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A process with a track that has one slice."""
    file = tmp_path / "shop & co.pftrace"
    process, track = message(3, integer(1, 7) + message(6, b"shop")), integer(5, 1) + message(2, b"requests")
    begin, end = integer(9, 1) + integer(11, 2) + message(23, b"GET /"), integer(9, 2) + integer(11, 2)
    file.write_bytes(
        packet(message(60, integer(1, 1) + process))
        + packet(message(60, integer(1, 2) + track))
        + packet(integer(8, START), message(11, begin))
        + packet(integer(8, END), message(11, end))
    )
    return file


@pytest.fixture
def chromium() -> None:
    """Pictures are for the documentation: no machine has to have Chromium."""
    try:
        program(("chromium", "google-chrome"), "chromium")
    except MissingToolError as missing:
        pytest.skip(str(missing))


def test_ui_and_trace_are_served(trace: Path, trace_processor: TraceProcessor) -> None:
    with serve(trace) as base:
        assert b"Perfetto UI" in read(f"{base}/")
        assert read(f"{base}/trace/{quote(trace.name)}") == trace.read_bytes()


def test_bounds_and_problems(trace: Path, trace_processor: TraceProcessor, capsys: pytest.CaptureFixture[str]) -> None:
    assert bounds(trace) == (START, END)
    assert capsys.readouterr().err == ""


@pytest.mark.server
@pytest.mark.usefixtures("chromium")
def test_picture_shows_what_was_asked_for(trace: Path, trace_processor: TraceProcessor, tmp_path: Path) -> None:
    png = tmp_path / "picture.png"
    expected = [["shop 7: true"], ["requests"], [6_000_000_000, 2_000_000_000]]
    javascript = LOOK.replace("EXPECTED", json.dumps(expected))
    with serve(trace) as base:
        url = address(base, trace, pin=["^req"], seen=(6_000_000_000, 8_000_000_000))
        take_picture(url, png, "800x600", javascript)
        with pytest.raises(subprocess.CalledProcessError):
            take_picture(url, png, "800x600", LOOK.replace("EXPECTED", "[]"))
    header = png.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:]) == (800, 600)
