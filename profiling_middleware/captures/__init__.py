"""The kinds of capture. A new kind is a new file and one entry in `CAPTURES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from profiling_middleware.captures.cpu import cpu_capture
from profiling_middleware.captures.wall import wall_capture
from profiling_middleware.model import CaptureInfo, Profile
from profiling_middleware.sampling.engine import Engine


class Capture(Protocol):
    """One capture being taken. All calls come from the timer's thread."""

    def begin(self) -> None:
        """Starts to collect."""

    def end(self, info: CaptureInfo) -> Profile:
        """Stops and returns what was collected."""

    def cancel(self) -> None:
        """Stops; nothing is kept."""


CAPTURES: Mapping[str, Callable[[Engine, float], Capture]] = {"cpu": cpu_capture, "wall": wall_capture}
"""Each makes a capture from the engine and the seconds that it is to last."""
