"""Durations, sizes, shares and times as people write them in environment variables."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

# As in Go, micro is written u, U+00B5 or U+03BC.
_DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


def parse_duration(text: str) -> float:
    """Seconds of a Go duration: `90s`, `5m`, `1h30m`, `1.5h`, `250ms`; `0` needs no unit.

    The grammar is that of Go's `time.ParseDuration`, without a sign. Raises ValueError with a remedy.
    """
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    seconds, end = 0.0, 0
    for part in _DURATION_PART.finditer(stripped):
        if part.start() != end:
            break
        seconds += float(part[1]) * _DURATION_UNITS[part[2]]
        end = part.end()
    if not stripped or end != len(stripped) or not math.isfinite(seconds):
        raise ValueError("is not a duration: write a number with a unit, such as 90s, 5m, 1h30m or 1.5h")
    return seconds


def parse_size(text: str) -> int:
    """Bytes of a size such as `64MiB`, `500KB` or a plain number of bytes. Raises ValueError with a remedy."""
    match = _SIZE.fullmatch(text.strip())
    size = float(match[1]) * _SIZE_UNITS.get(match[2], math.nan) if match is not None else math.nan
    if not math.isfinite(size):
        raise ValueError("is not a size: write bytes or a number with a unit, such as 64MiB, 500KB or 1GiB")
    return int(size)


def parse_share(text: str) -> float:
    """The fraction that a share names: `1%` is 0.01, `0.01` is too."""
    stripped = text.strip()
    number, scale = (stripped[:-1], 0.01) if stripped.endswith("%") else (stripped, 1.0)
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", number.strip()):
        raise ValueError("is not a share: write a percentage such as 1% or a fraction such as 0.01")
    return float(number) * scale


def format_duration(seconds: float) -> str:
    """`90` as `1m30s`, `0.25` as `250ms`: what `parse_duration` reads back."""
    if seconds < 1:
        return f"{seconds * 1000:.6f}".rstrip("0").rstrip(".") + "ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest:g}s" if rest else ""]
    return "".join(parts)


def format_size(size: int) -> str:
    """Bytes for people: `512 B`, `48.2 KiB`, `16.0 MiB`."""
    if size < 1024:
        return f"{size} B"
    if size < 1024 * 1024:
        return f"{size / 1024:.1f} KiB"
    return f"{size / 1024 / 1024:.1f} MiB"


def format_time(utc_ns: int) -> str:
    """Nanoseconds since 1970 as `2026-01-26T15:30:00.250Z` (RFC 3339, UTC)."""
    seconds, rest = divmod(utc_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"
