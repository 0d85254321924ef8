"""A file that nobody else knows, for what is too big for memory."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self, cast

from profiling_middleware.descriptors import above_standard_streams

_CHUNK = 256 * 1024


class PrivateFile:
    """Written at its end by one thread, read from its beginning by any number of others. Its length is `len()`.

    It has no name: when the process ends, however it ends, it is gone.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """In `directory`, or where temporary files go. Raises OSError when none can be made there."""
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            descriptor = above_standard_streams(os.dup(file.fileno()))
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        self._size = 0
        self._rest = b""

    @classmethod
    def of(cls, descriptor: int, size: int) -> Self:
        """The first `size` bytes of an open file, which is closed with this one."""
        file = cls.__new__(cls)
        file._file, file._size, file._rest = os.fdopen(descriptor, "r+b", buffering=0), size, b""
        return file

    def __len__(self) -> int:
        return self._size + len(self._rest)

    @property
    def in_memory(self) -> int:
        """How much of it found no room on disk."""
        return len(self._rest)

    def append(self, data: bytes) -> None:
        """Writes all of it, or nothing that counts. Raises OSError, such as for a full disk."""
        view = memoryview(data)
        written = 0
        while written < len(view):
            written += os.pwrite(self._file.fileno(), view[written:], self._size + written)
        self._size += written

    def end_with(self, data: bytes) -> None:
        """Its last bytes, kept in memory: there is no room for them on disk. Nothing is appended after them."""
        self._rest = data

    def open(self) -> BinaryIO:
        """To read it, and to seek in it, from the beginning and independently of others."""
        return cast(BinaryIO, io.BufferedReader(_Reader(self), _CHUNK))

    def chunks(self) -> Iterator[bytes]:
        """Its content."""
        with self.open() as reader:
            while chunk := reader.read(_CHUNK):
                yield chunk

    def read(self) -> bytes:
        """All of it."""
        return b"".join(self.chunks())

    def close(self) -> None:
        """Gives its room back at once; otherwise that happens when nobody holds it any more."""
        self._file.close()

    def __del__(self) -> None:
        # That nobody holds it any more is how it is closed: nothing to warn of.
        file = getattr(self, "_file", None)  # there is none when none could be made
        if file is not None:
            file.close()

    def _read_at(self, size: int, offset: int) -> bytes:
        if offset >= self._size:
            return self._rest[offset - self._size :][:size]
        return os.pread(self._file.fileno(), min(size, self._size - offset), offset)


class _Reader(io.RawIOBase):
    """One reader's place in the file."""

    def __init__(self, file: PrivateFile) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._file._read_at(len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._file)}[whence]
        if base + offset < 0:
            raise ValueError(f"offset = {offset} lies before the beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position
