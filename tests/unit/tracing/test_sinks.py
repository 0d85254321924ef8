"""Where chunks go: whole at any time, on disks that are full as well."""

from __future__ import annotations

import errno
import gzip
import logging
import os
import random
import threading
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling_middleware.model import Body
from profiling_middleware.private_file import PrivateFile
from profiling_middleware.tracing import sinks
from profiling_middleware.tracing.sinks import TraceFile

LOGGER = logging.getLogger("profiling_middleware")
PLENTY = 1 << 40
KIB = 1024


def noise(size: int, seed: int = 0) -> bytes:
    """What gzip makes no smaller."""
    return random.Random(seed).randbytes(size)


def content(body: Body) -> bytes:
    """Of one member of gzip, with nothing behind it."""
    packed = body if isinstance(body, bytes) else body.read()
    unpacker = zlib.decompressobj(31)
    unpacked = unpacker.decompress(packed) + unpacker.flush()
    assert (unpacker.eof, unpacker.unused_data) == (True, b"")
    return unpacked


class Disk:
    """Fails while it is full; only files of the test's own are written to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.asked = 0
        pwrite = os.pwrite

        def write(descriptor: int, data: Any, offset: int) -> int:
            self.asked += 1
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return pwrite(descriptor, data, offset)

        monkeypatch.setattr(os, "pwrite", write)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def write(file: TraceFile, *chunks: bytes) -> None:
    for chunk in chunks:
        file.write(chunk, 0, 0)


def test_a_small_trace_stays_in_memory(tmp_path: Path, logger: logging.Logger) -> None:
    file = TraceFile(tmp_path / "no folder", PLENTY, logger)
    write(file, b"one, ", b"", b"two, ")
    body = file.finish(b"last")
    assert isinstance(body, bytes)
    assert content(body) == gzip.decompress(body) == b"one, two, last"
    assert file.left_out == 0


def test_what_is_written_at_different_times_is_the_same(tmp_path: Path, logger: logging.Logger) -> None:
    bodies = []
    for _ in range(2):
        file = TraceFile(tmp_path, PLENTY, logger)
        write(file, b"chunk" * 100)
        bodies.append(file.finish(b""))
    assert bodies[0] == bodies[1]


@given(st.lists(st.binary(max_size=2_000), max_size=20), st.binary(max_size=100))
def test_it_is_whole_whenever_it_is_finished(chunks: list[bytes], last: bytes) -> None:
    file = TraceFile(None, PLENTY, LOGGER)
    write(file, *chunks)
    assert content(file.finish(last)) == b"".join(chunks) + last


def test_a_big_trace_goes_to_a_file(tmp_path: Path, logger: logging.Logger) -> None:
    """And lets go of it in memory."""
    file = TraceFile(tmp_path, PLENTY, logger)
    chunks = [noise(200 * KIB, number) for number in range(10)]
    held = []
    for chunk in chunks:
        write(file, chunk)
        held.append(file._pending_bytes)
    assert max(held) < 800 * KIB
    body = file.finish(b"last")
    assert isinstance(body, PrivateFile)
    assert content(body) == b"".join(chunks) + b"last"
    assert len(body) >= 2_000 * KIB
    assert list(tmp_path.iterdir()) == []


def test_the_bound_is_of_what_is_stored(tmp_path: Path, logger: logging.Logger) -> None:
    """Of packed bytes, in memory and on disk; what finds no room is left out, and the last chunk never is."""
    file = TraceFile(tmp_path, 1_000 * KIB, logger)
    chunks = [noise(100 * KIB, number) for number in range(30)]
    write(file, b"x" * 5_000 * KIB, *chunks)
    assert 19 <= file.left_out <= 20
    body = file.finish(last := noise(400 * KIB, 99))
    assert isinstance(body, PrivateFile)
    kept = chunks[: 30 - file.left_out]
    assert content(body) == b"x" * 5_000 * KIB + b"".join(kept) + last
    assert len(body) <= (1_000 + 100 + 400 + 50) * KIB


@pytest.mark.parametrize("why", ["full", "no folder"])
def test_without_room_on_disk_it_is_kept_in_memory_up_to_a_bound(
    why: str, tmp_path: Path, disk: Disk, logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes beyond that is left out and counted, and it is said once."""
    disk.full = True
    folder = tmp_path / "no folder" if why == "no folder" else tmp_path
    file = TraceFile(folder, PLENTY, logger)
    chunks = [noise(1_000 * KIB, number) for number in range(14)]
    write(file, *chunks)
    most = sinks._MOST_IN_MEMORY
    assert file.left_out == 14 - (most // (1_000 * KIB) + 1)
    assert file._pending_bytes < most + 1_100 * KIB
    body = file.finish(b"last")
    assert isinstance(body, bytes)
    assert content(body) == b"".join(chunks[: 14 - file.left_out]) + b"last"
    (said,) = caplog.messages
    reason = "No such file or directory" if why == "no folder" else "No space left on device"
    assert said == (
        f"profiling: a trace cannot be written to {folder} ({reason}), and is kept in memory up to 8 MiB: "
        "make room there, or name another directory in PROFILE_SPOOL_DIR"
    )


def test_room_that_comes_back_is_used(tmp_path: Path, disk: Disk, logger: logging.Logger) -> None:
    file = TraceFile(tmp_path, PLENTY, logger)
    chunks = [noise(600 * KIB, number) for number in range(4)]
    disk.full = True
    write(file, *chunks[:2])
    assert file._pending_bytes > 1_000 * KIB
    disk.full = False
    write(file, *chunks[2:])
    assert file._pending_bytes < 600 * KIB
    body = file.finish(b"last")
    assert isinstance(body, PrivateFile)
    assert content(body) == b"".join(chunks) + b"last"
    assert file.left_out == 0


def test_a_disk_that_becomes_full_loses_nothing_that_was_taken(
    tmp_path: Path, disk: Disk, logger: logging.Logger
) -> None:
    """Part of it is in a file then, and part in memory."""
    file = TraceFile(tmp_path, PLENTY, logger)
    chunks = [noise(600 * KIB, number) for number in range(4)]
    write(file, *chunks[:2])
    disk.full = True
    write(file, *chunks[2:])
    body = file.finish(b"last")
    assert isinstance(body, PrivateFile)
    assert 1_100 * KIB < body.in_memory < 1_300 * KIB
    assert content(body) == b"".join(chunks) + b"last"


def test_what_is_on_disk_stays_there_when_it_is_full_at_the_end(
    tmp_path: Path, disk: Disk, logger: logging.Logger
) -> None:
    """To read it into memory would take as much as it is big, in a service that has just run out of room."""
    file = TraceFile(tmp_path, PLENTY, logger)
    for number in range(16):
        write(file, noise(600 * KIB, number))
    disk.full = True
    last = noise(10 * KIB)
    tracemalloc.start()
    try:
        body = file.finish(last)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000 * KIB
    assert len(body) > 9_600 * KIB
    assert content(body)[-len(last) :] == last


def test_a_disk_that_fails_at_the_end_loses_nothing_either(tmp_path: Path, disk: Disk, logger: logging.Logger) -> None:
    file = TraceFile(tmp_path, PLENTY, logger)
    write(file, chunk := noise(600 * KIB))
    disk.full = True
    body = file.finish(b"last")
    assert isinstance(body, PrivateFile)
    assert content(body) == chunk + b"last"


def test_several_may_read_it(tmp_path: Path, logger: logging.Logger, deadline: float) -> None:
    file = TraceFile(tmp_path, PLENTY, logger)
    write(file, chunk := noise(900 * KIB))
    body = file.finish(b"last")
    read: list[bytes] = []
    threads = [threading.Thread(target=lambda: read.append(content(body))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline)
    assert read == [chunk + b"last"] * 3
