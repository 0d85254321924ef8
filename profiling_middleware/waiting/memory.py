"""Captures in memory until they are in the store: what the spool cannot take."""

from __future__ import annotations

import threading

from profiling_middleware.model import Artifact

MAX_BYTES = 16 * 1024 * 1024
MAX_FILE_BYTES = 64 * 1024 * 1024
"""Of traces that are too big for memory, and lie in files without a name."""


class Memory:
    """The newest captures. Thread-safe."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self._max_bytes, self._max_file_bytes = max_bytes, max_file_bytes
        self._captures: dict[str, Artifact] = {}
        self._lock = threading.Lock()

    def add(self, artifact: Artifact, going: str | None = None) -> list[Artifact]:
        """Keeps it, and returns those that had to make room: the oldest ones, or itself if it is too big.

        The capture with the id `going` is being put: it stays, and does not count until it is put back.
        """
        in_memory, in_files = _sizes(artifact)
        if in_memory > self._max_bytes or in_files > self._max_file_bytes:
            return [artifact]
        with self._lock:
            self._captures[artifact.info.capture_id] = artifact
        return self.trim(going)

    def trim(self, going: str | None = None) -> list[Artifact]:
        """Drops the oldest ones while there are too many bytes, and returns them."""
        dropped = []
        room, file_room = self._max_bytes, self._max_file_bytes
        with self._lock:
            for one in sorted(self._captures.values(), key=lambda one: one.info.started_ns, reverse=True):
                if one.info.capture_id == going:
                    continue
                in_memory, in_files = _sizes(one)
                room, file_room = room - in_memory, file_room - in_files
                if (in_memory and room < 0) or (in_files and file_room < 0):
                    del self._captures[one.info.capture_id]
                    dropped.append(one)
        return dropped[::-1]

    def remove(self, capture_id: str) -> None:
        """It is in the store, or in the spool."""
        with self._lock:
            self._captures.pop(capture_id, None)


def _sizes(artifact: Artifact) -> tuple[int, int]:
    """How much of it is in memory, and how much in a file."""
    body = artifact.body
    in_memory = len(body) if isinstance(body, bytes) else body.in_memory
    return in_memory, len(body) - in_memory
