"""What a request to a capture asks for, checked: a bad value is refused by name, value and remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from profiling_middleware.encoders.views import VIEWS

_PARAMETERS = ("seconds", "format", "debug", "upload", "wait")
_FORMATS = ("pprof", *VIEWS)


class QueryError(ValueError):
    """A query that cannot be answered; the message says why and what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureQuery:
    seconds: float | None
    """None when the query does not say."""
    view: str | None
    """None for pprof, otherwise a name in VIEWS."""
    upload: bool
    wait: bool


def parse_capture_query(query: str, *, max_seconds: float) -> CaptureQuery:
    """Reads `seconds`, `format`, `debug`, `upload` and `wait`. Raises QueryError."""
    values = _parameters(query)
    view = _choice(values, "format", _FORMATS, "pprof")
    # As in Go, debug=1 asks for text; 0 is what scrapers send.
    if _switch(values, "debug", default=False):
        view = "text"
    parsed = CaptureQuery(
        seconds=_seconds(values.get("seconds"), max_seconds),
        view=None if view == "pprof" else view,
        upload=_switch(values, "upload", default=True),
        wait=_switch(values, "wait", default=True),
    )
    if not parsed.wait and parsed.view:
        raise QueryError(f"wait = 0 stores pprof and cannot answer {parsed.view}: leave out one of the two")
    if not parsed.wait and not parsed.upload:
        raise QueryError("wait = 0 with upload = 0 would lose the capture: leave out one of the two")
    return parsed


def _parameters(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=16)
    except ValueError:
        raise QueryError("the query is not of the form name=value&name=value") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in _PARAMETERS:
            raise QueryError(f"{_shown(name)} is no parameter here: choose from {', '.join(_PARAMETERS)}")
        if name in values:
            raise QueryError(f"{name} is given twice ({_shown(values[name])}, {_shown(value)}): give it once")
        values[name] = value
    return values


def _seconds(text: str | None, most: float) -> float | None:
    if text is None:
        return None
    wanted = f"use a number of seconds, more than 0 and at most {most:g} (PROFILE_MAX_SECONDS)"
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise QueryError(f"seconds = {_shown(text)} is not such a number: {wanted}")
    seconds = float(text)
    if not 0 < seconds <= most:
        raise QueryError(f"seconds = {_shown(text)} is out of range: {wanted}")
    return seconds


def _switch(values: dict[str, str], name: str, *, default: bool) -> bool:
    return _choice(values, name, ("0", "1"), "1" if default else "0") == "1"


def _choice(values: dict[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    value = values.get(name, default)
    if value not in choices:
        raise QueryError(f"{name} = {_shown(value)} is unknown: choose from {', '.join(choices)}")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
