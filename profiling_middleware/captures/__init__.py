"""The kinds of capture. A new kind is a new file and one entry in `CAPTURES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from profiling_middleware.captures.block import block_capture
from profiling_middleware.captures.cpu import cpu_capture
from profiling_middleware.captures.mutex import mutex_capture
from profiling_middleware.captures.sources import Sources
from profiling_middleware.captures.trace import TraceCapture
from profiling_middleware.captures.wall import wall_capture
from profiling_middleware.model import CaptureInfo, Profile, Trace


class Capture(Protocol):
    """One capture being taken. All calls come from the timer's thread."""

    def begin(self) -> None:
        """Starts to collect."""

    def end(self, info: CaptureInfo) -> Profile | Trace:
        """Stops and returns what was collected."""

    def cancel(self) -> None:
        """Stops; nothing is kept."""


CaptureMaker = Callable[[Sources, float], Capture]
"""Makes a capture from its sources and the seconds that it is to last."""

CAPTURES: Mapping[str, CaptureMaker] = {
    "cpu": cpu_capture,
    "wall": wall_capture,
    "block": block_capture,
    "mutex": mutex_capture,
    "trace": TraceCapture,
}

CUMULATIVE = frozenset({"block", "mutex"})
"""Kinds that are collected all the time once enabled; a window has what there is at its end."""
