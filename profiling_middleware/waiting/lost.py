"""What is told of a capture that could not be kept."""

from __future__ import annotations

from typing import NamedTuple

from profiling_middleware.model import Artifact


class Lost(NamedTuple):
    """A capture that will never be in the store."""

    name: str
    """`kind=… key=… bytes=…`, or of a file that tells nothing its name."""
    reason: str
    capture_id: str = ""
    """Empty where nothing is known but the file."""


def lost_capture(artifact: Artifact, reason: str) -> Lost:
    """Of one that is known."""
    info = artifact.info
    return Lost(f"kind={info.kind} key={artifact.key} bytes={len(artifact.body)}", reason, info.capture_id)


def lost_file(name: str, reason: str) -> Lost:
    """Of one that tells nothing of itself."""
    return Lost(f"file={name}", reason)
