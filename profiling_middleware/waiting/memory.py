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
        if len(artifact.body) > self._most(artifact):
            return [artifact]
        with self._lock:
            self._captures[artifact.info.capture_id] = artifact
        return self.trim(going)

    def trim(self, going: str | None = None) -> list[Artifact]:
        """Drops the oldest ones while there are too many bytes, and returns them."""
        dropped = []
        sizes = dict.fromkeys((True, False), 0)
        with self._lock:
            for one in sorted(self._captures.values(), key=lambda one: one.info.started_ns, reverse=True):
                in_memory = isinstance(one.body, bytes)
                if one.info.capture_id == going:
                    continue
                sizes[in_memory] += len(one.body)
                if sizes[in_memory] > self._most(one):
                    del self._captures[one.info.capture_id]
                    dropped.append(one)
        return dropped[::-1]

    def _most(self, artifact: Artifact) -> int:
        return self._max_bytes if isinstance(artifact.body, bytes) else self._max_file_bytes

    def remove(self, capture_id: str) -> None:
        """It is in the store, or in the spool."""
        with self._lock:
            self._captures.pop(capture_id, None)
