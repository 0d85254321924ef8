"""What may be asked for: which kind, of how many seconds, which are to come or over already."""

from __future__ import annotations

from functools import partial

from profiling_middleware.captures import CAPTURES, CaptureMaker
from profiling_middleware.captures.trace import LastSeconds, TraceCapture
from profiling_middleware.tracing.flight import FLIGHT_SECONDS

NO_FLIGHT = "no trace is recorded all the time: set PROFILE_ENABLED, and name trace in PROFILE_TYPES"


def check_kind(kind: str) -> None:
    """Raises ValueError for one that there is not."""
    if kind not in CAPTURES:
        raise ValueError(f"kind = {kind!r} cannot be captured: choose from {', '.join(CAPTURES)}")


def capture_maker(kind: str, *, full: bool) -> CaptureMaker | None:
    """What makes a capture of seconds to come; None for what `CAPTURES` says."""
    return partial(TraceCapture, full=full) if kind == "trace" else None


def check_length(kind: str, seconds: float | None, *, collected: bool, most: float) -> None:
    """Raises ValueError if there can be no capture of so many seconds to come, or, with None, of all `collected`."""
    if seconds is None:
        if not collected:
            raise ValueError(f"seconds = None takes what has been collected, and no {kind} profile is: give a length")
    elif not 0 < seconds <= most:
        raise ValueError(
            f"seconds = {seconds!r} is out of range: use more than 0 and at most {most} (PROFILE_MAX_SECONDS)"
        )


def last_seconds_maker(kind: str, last: float, *, kept: bool) -> CaptureMaker:
    """What makes a capture of the `last` seconds, which are over. Raises ValueError where they are not `kept`."""
    if kind != "trace":
        raise ValueError(f"last = {last!r} is for a trace: a {kind} profile is not kept for a time like that")
    if not 0 < last <= FLIGHT_SECONDS:
        raise ValueError(f"last = {last!r} is out of range: use more than 0 and at most {FLIGHT_SECONDS:g} seconds")
    if not kept:
        raise ValueError(f"last = {last!r}: {NO_FLIGHT}")
    return partial(LastSeconds, last_seconds=last)
