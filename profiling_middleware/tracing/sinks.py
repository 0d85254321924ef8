"""Where the chunks of a trace go: through gzip, into memory while they are few and then into a private file."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path
from typing import Protocol

from profiling_middleware.model import Body
from profiling_middleware.private_file import PrivateFile

# Level 2 takes half the time of level 6, for a tenth more.
_GZIP_LEVEL, _GZIP_FORMAT = 2, 31  # zlib's window bits for a gzip header, whose time stamp zlib leaves 0
_IN_MEMORY = 512 * 1024
_MOST_IN_MEMORY = 8 * 1024 * 1024


class Sink(Protocol):
    """Takes chunks. All calls come from the thread that encodes traces."""

    def write(self, chunk: bytes, began_ns: int, ended_ns: int) -> None:
        """Takes a chunk of what happened between two moments of the monotonic clock."""


class TraceFile:
    """One trace. It is whole whenever `finish` is called; a chunk that finds no room is left out and counted."""

    def __init__(self, directory: Path | None, most_bytes: int, logger: logging.Logger) -> None:
        """At most `most_bytes` in `directory`, or where temporary files go; without room there, 8 MiB in memory."""
        self._directory, self._most_bytes, self._logger = directory, most_bytes, logger
        self._gzip = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
        self._file: PrivateFile | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._failed = False
        self.left_out = 0
        """Chunks."""

    def write(self, chunk: bytes, began_ns: int, ended_ns: int) -> None:
        stored = len(self._file) if self._file is not None else 0
        if stored + self._pending_bytes > self._most_bytes or self._pending_bytes > _MOST_IN_MEMORY:
            self.left_out += 1
            return
        self._keep(self._gzip.compress(chunk))
        if self._pending_bytes > _IN_MEMORY:
            self._spill()

    def finish(self, last: bytes) -> Body:
        """The gzipped trace, after a `last` chunk that always finds room."""
        self._keep(self._gzip.compress(last))
        self._keep(self._gzip.flush())
        if self._file is not None:
            self._spill()
        rest = b"".join(self._pending)
        if not self._file:
            return rest
        self._file.end_with(rest)
        return self._file

    def _keep(self, data: bytes) -> None:
        if data:
            self._pending.append(data)
            self._pending_bytes += len(data)

    def _spill(self) -> None:
        try:
            if self._file is None:
                self._file = PrivateFile(self._directory)
            self._file.append(b"".join(self._pending))
        except OSError as error:
            if not self._failed:
                self._failed = True
                self._logger.error(
                    "profiling: a trace cannot be written to %s (%s), and is kept in memory up to %d MiB: "
                    "make room there, or name another directory in PROFILE_SPOOL_DIR",
                    self._directory or "the directory for temporary files",
                    error.strerror or error,
                    _MOST_IN_MEMORY >> 20,
                )
            return
        self._pending.clear()
        self._pending_bytes = 0
