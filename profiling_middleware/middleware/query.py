"""What a request to a capture asks for, checked: a bad value is refused by name, value and remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from profiling_middleware.encoders.views import VIEWS
from profiling_middleware.tracing.flight import FLIGHT_SECONDS

_PARAMETERS = ("seconds", "format", "debug", "upload", "wait", "detail", "last", "workers", "pid")
_FORMATS = ("pprof", *VIEWS)
_DETAILS = ("full", "long")
_INDEX_FORMATS = ("html", "json")


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
    full: bool
    """Of a trace: everything, not only what is long enough to matter."""
    last: float | None
    """Of a trace: so many seconds before now; None for what happens from now on."""
    all_workers: bool
    """Of the service on this host, and not only the one that is asked."""
    pid: int | None
    """That worker alone, whoever is asked."""


def parse_capture_query(query: str, kind: str, *, max_seconds: float) -> CaptureQuery:
    """Reads the parameters of a capture; `detail` and `last` are for a trace. Raises QueryError."""
    values = _parameters(query)
    _check_kind(values, kind)
    view = _choice(values, "format", _FORMATS, "pprof")
    # As in Go, debug=1 asks for text; 0 is what scrapers send.
    if _switch(values, "debug", default=False):
        view = "text"
    parsed = CaptureQuery(
        seconds=_seconds("seconds", values.get("seconds"), max_seconds, "PROFILE_MAX_SECONDS"),
        view=None if view == "pprof" else view,
        upload=_switch(values, "upload", default=True),
        wait=_switch(values, "wait", default=True),
        full=_choice(values, "detail", _DETAILS, "full") == "full",
        last=_seconds("last", values.get("last"), FLIGHT_SECONDS, "what is kept"),
        all_workers="workers" in values and _choice(values, "workers", ("all",), "") == "all",
        pid=_pid(values.get("pid")),
    )
    if parsed.last is not None and parsed.seconds is not None:
        raise QueryError("last is for what has happened, seconds for what will: leave out one of the two")
    if parsed.last is not None and "detail" in values:
        raise QueryError("last has the detail that is recorded all the time: leave out detail")
    if parsed.all_workers and parsed.pid is not None:
        raise QueryError("workers = all is everyone, pid is one of them: leave out one of the two")
    if not parsed.wait and parsed.view:
        raise QueryError(f"wait = 0 stores pprof and cannot answer {parsed.view}: leave out one of the two")
    if not parsed.wait and not parsed.upload:
        raise QueryError("wait = 0 with upload = 0 would lose the capture: leave out one of the two")
    return parsed


def parse_index_format(query: str) -> str:
    """How the state is to be shown: `html` or `json`. Raises QueryError."""
    return _choice(_parameters(query, ("format",)), "format", _INDEX_FORMATS, "html")


def _parameters(query: str, known: tuple[str, ...] = _PARAMETERS) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=16)
    except ValueError:
        raise QueryError("the query is not of the form name=value&name=value") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise QueryError(f"{_shown(name)} is no parameter here: choose from {', '.join(known)}")
        if name in values:
            raise QueryError(f"{name} is given twice ({_shown(values[name])}, {_shown(value)}): give it once")
        values[name] = value
    return values


def _check_kind(values: dict[str, str], kind: str) -> None:
    if kind == "trace":
        view = values.get("format", "1" if values.get("debug") == "1" else "")
        if view not in ("", "perfetto"):
            name = "format" if "format" in values else "debug"
            raise QueryError(f"{name} = {_shown(values[name])} is for profiles: a trace is for Perfetto, leave it out")
        values.pop("format", None)
        return
    for name in ("detail", "last"):
        if name in values:
            raise QueryError(f"{name} = {_shown(values[name])} is for a trace, and this is a {kind} profile")


def _seconds(name: str, text: str | None, most: float, whose: str) -> float | None:
    if text is None:
        return None
    wanted = f"use a number of seconds, more than 0 and at most {most:g} ({whose})"
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise QueryError(f"{name} = {_shown(text)} is not such a number: {wanted}")
    seconds = float(text)
    if not 0 < seconds <= most:
        raise QueryError(f"{name} = {_shown(text)} is out of range: {wanted}")
    return seconds


def _pid(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise QueryError(f"pid = {_shown(text)} is no process id: use the number of a worker, as the index shows it")
    return int(text)


def _switch(values: dict[str, str], name: str, *, default: bool) -> bool:
    return _choice(values, name, ("0", "1"), "1" if default else "0") == "1"


def _choice(values: dict[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    value = values.get(name, default)
    if value not in choices:
        raise QueryError(f"{name} = {_shown(value)} is unknown: choose from {', '.join(choices)}")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
