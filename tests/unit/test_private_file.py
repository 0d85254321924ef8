"""A file without a name: what is appended is read back, by any number of readers, and nothing stays of it."""

from __future__ import annotations

import errno
import gc
import io
import os
import subprocess
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling_middleware.private_file import PrivateFile

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]
# Larger than what is read at once.
BIG = bytes(range(256)) * 3000


@pytest.fixture
def file(tmp_path: Path) -> PrivateFile:
    return PrivateFile(tmp_path)


def test_what_is_appended_is_read_from_the_beginning(file: PrivateFile) -> None:
    assert (len(file), file.read(), list(file.chunks())) == (0, b"", [])
    file.append(b"one")
    file.append(b"")
    file.append(b", two")
    assert (len(file), file.read()) == (8, b"one, two")
    file.append(BIG)
    assert len(file) == 8 + len(BIG)
    assert file.read() == b"one, two" + BIG
    chunks = list(file.chunks())
    assert len(chunks) > 1
    assert b"".join(chunks) == b"one, two" + BIG


@pytest.mark.parametrize("written", [b"", b"on disk, ", BIG], ids=["nothing", "little", "much"])
@pytest.mark.parametrize("rest", [b"", b"in memory", BIG], ids=["nothing", "little", "much"])
def test_its_end_may_be_in_memory(file: PrivateFile, written: bytes, rest: bytes) -> None:
    """Where there is no room for it on disk any more."""
    file.append(written)
    file.end_with(rest)
    assert (len(file), file.in_memory) == (len(written + rest), len(rest))
    assert file.read() == b"".join(file.chunks()) == written + rest
    with file.open() as reader:
        for place in (0, len(written) - 3, len(written), len(written) + 3, len(file) - 1, len(file), len(file) + 5):
            reader.seek(max(0, place))
            assert reader.read(7) == (written + rest)[max(0, place) :][:7]
        assert reader.seek(0, os.SEEK_END) == len(file)


def test_readers_do_not_mind_each_other_nor_what_is_appended(file: PrivateFile) -> None:
    file.append(b"0123456789")
    with file.open() as one, file.open() as other:
        assert one.read(3) == b"012"
        assert other.read(5) == b"01234"
        assert one.read(3) == b"345"
        one.seek(1)
        assert other.read() == b"56789"
        assert one.read(2) == b"12"
        file.append(b"ab")
        one.seek(0)
        assert one.read() == b"0123456789ab"
    assert file.read() == b"0123456789ab"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("read"), st.integers(-1, 30)),
            st.tuples(st.just("seek"), st.integers(0, 40), st.just(os.SEEK_SET)),
            st.tuples(st.just("seek"), st.integers(0, 40), st.just(os.SEEK_END)),
            st.tuples(st.just("seek"), st.integers(0, 5), st.just(os.SEEK_CUR)),
            st.tuples(st.just("tell")),
            st.tuples(st.just("readline")),
        )
    )
)
def test_a_reader_is_like_any_other_file(calls: list[tuple[Any, ...]]) -> None:
    content = b"some\nlines of\ntext, 30 bytes.."
    file = PrivateFile()
    file.append(content)
    with file.open() as reader:
        expected = io.BytesIO(content)
        for name, *arguments in calls:
            assert getattr(reader, name)(*arguments) == getattr(expected, name)(*arguments)


def test_a_reader_cannot_be_written_to_and_seeks_nowhere_before_the_beginning(file: PrivateFile) -> None:
    file.append(b"0123")
    with file.open() as reader:
        assert (reader.readable(), reader.seekable(), reader.writable()) == (True, True, False)
        with pytest.raises(io.UnsupportedOperation):
            reader.write(b"x")
        with pytest.raises(ValueError, match="before the beginning"):
            reader.seek(-5, os.SEEK_END)
        assert reader.seek(-1, os.SEEK_END) == 3
        assert reader.read() == b"3"
    assert file.read() == b"0123"


def test_it_is_read_in_many_threads_at_once(file: PrivateFile, deadline: float) -> None:
    file.append(BIG)
    read: list[bytes] = []
    together = threading.Barrier(4)

    def work() -> None:
        together.wait(deadline)
        read.append(file.read())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline)
    assert read == [BIG] * 4


def test_nothing_of_a_failed_append_counts(file: PrivateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full after a part of it; later there is room again."""
    file.append(b"first ")

    def fills_up(descriptor: int, data: Any, offset: int) -> int:
        monkeypatch.setattr(os, "pwrite", full)
        return pwrite(descriptor, data[:3], offset)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", fills_up)
    with pytest.raises(OSError, match="No space left"):
        file.append(b"second")
    assert (len(file), file.read()) == (6, b"first ")
    monkeypatch.undo()
    file.append(b"2")
    assert (len(file), file.read()) == (7, b"first 2")


def test_a_write_may_take_several(file: PrivateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:1000], offset))
    file.append(BIG[:4500])
    assert file.read() == BIG[:4500]


def test_there_is_no_name_and_no_child_has_it(file: PrivateFile, tmp_path: Path) -> None:
    file.append(b"secret")
    assert list(tmp_path.iterdir()) == []
    assert not os.get_inheritable(file._file.fileno())
    assert os.fstat(file._file.fileno()).st_mode & 0o077 == 0


def test_where_no_file_can_be_made_it_says_so(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FileNotFoundError):
            PrivateFile(tmp_path / "no folder")
        gc.collect()


@pytest.mark.parametrize("closed", [True, False])
def test_its_descriptor_is_given_back_without_a_warning(closed: bool, run_python: RunPython) -> None:
    """When it is closed, and when nobody holds it any more; a reader does."""
    ran = run_python(
        """
import os, sys
from profiling_middleware.private_file import PrivateFile

def descriptors():
    return len(os.listdir("/proc/self/fd"))

before = descriptors()
file = PrivateFile()
file.append(b"content")
assert descriptors() == before + 1
reader = file.open()
if sys.argv[1] == "True":
    file.close()
    file.close()
else:
    del file
    assert reader.read() == b"content"
    del reader
assert descriptors() == before
kept = PrivateFile()  # until the interpreter ends
""",
        str(closed),
        options=("-X", "dev"),
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)


def test_it_takes_no_number_of_a_stream_that_is_closed(run_python: RunPython) -> None:
    ran = run_python(
        """
import os
from profiling_middleware.private_file import PrivateFile
saved = os.dup(2)
for closed in ((0,), (1, 2), (0, 1, 2)):
    for number in closed:
        os.close(number)
    file = PrivateFile()
    number = file._file.fileno()
    free = [os.open("/dev/null", os.O_RDWR) for _ in closed]
    for each in (0, 1, 2):
        os.dup2(saved, each)
    assert number > 2, number
    assert free == list(closed), free
    file.append(b"content")
    assert file.read() == b"content"
"""
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)
