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

        The capture with the id `going` is being put, and stays.
        """
        in_memory = isinstance(artifact.body, bytes)
        most = self._max_bytes if in_memory else self._max_file_bytes
        if len(artifact.body) > most:
            return [artifact]
        with self._lock:
            self._captures[artifact.info.capture_id] = artifact
            alike = [one for one in self._captures.values() if isinstance(one.body, bytes) is in_memory]
            size = sum(len(one.body) for one in alike)
            dropped: list[Artifact] = []
            for oldest in sorted(alike, key=lambda one: one.info.started_ns):
                if size <= most:
                    break
                if oldest.info.capture_id == going:
                    continue
                del self._captures[oldest.info.capture_id]
                size -= len(oldest.body)
                dropped.append(oldest)
            return dropped

    def remove(self, capture_id: str) -> None:
        """It is in the store, or in the spool."""
        with self._lock:
            self._captures.pop(capture_id, None)
