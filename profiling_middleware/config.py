"""Settings: what an operator decides. The only reader of the environment."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast
from urllib.parse import unquote, urlsplit

from profiling_middleware.units import format_duration, parse_duration, parse_share, parse_size

KINDS = ("cpu", "wall", "block", "mutex", "trace")
"""The kinds of capture that have a name; which of them can be taken is the captures' table."""

ENGINES = ("auto", "native", "polling", "python")
LOCAL_ENVIRONMENTS = frozenset({"dev", "local", "test"})
DEFAULT_BUCKET = "stl-debugging"
DEFAULT_SERVICE_NAME = "python-service"
_PREFIX = "PROFILE_"
_LONGEST_SECONDS = 365 * 24 * 3600.0

EngineName = Literal["auto", "native", "polling", "python"]
T = TypeVar("T")


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it, its value and what would be right."""

    def __init__(self, name: str, value: object, remedy: str) -> None:
        super().__init__(f"{_variable(name)} ({name}) = {value!r} {remedy}")
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be decided about the profiler. Durations in seconds, sizes in bytes, shares as fractions.

    `Settings.from_env()` reads the PROFILE_ variables; code may as well build it directly.
    Raises SettingsError (a ValueError) for what cannot be used.
    """

    enabled: bool = False
    """Periodic and cumulative collection. On-demand captures do not need it."""
    bucket: str | None = None
    """The bucket without its environment suffix; None means nobody named one (`stl-debugging` is the default)."""
    bucket_owner: str | None = None
    """The AWS account that must own the bucket (12 digits): bucket names are global."""
    environment: str | None = None
    service_name: str = DEFAULT_SERVICE_NAME
    interval: float = 300.0
    duration: float = 120.0
    types: tuple[str, ...] = ("cpu", "block", "mutex", "trace")
    """Which kinds a periodic window captures."""
    store: str = "s3"
    """`s3`, or `file:///absolute/directory`."""
    token: str | None = field(default=None, repr=False)
    max_seconds: int = 300
    engine: EngineName = "auto"
    sample_rate: int = 100
    max_overhead: float = 0.01
    spool_dir: Path | None = None
    spool_max_bytes: int = 64 * 1024 * 1024
    slow_request: float | None = None
    logger: logging.Logger = field(
        default_factory=lambda: logging.getLogger("profiling_middleware"), compare=False, repr=False
    )

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """The settings the environment asks for; an empty variable counts as unset.

        One that begins with PROFILE_ and is no setting is named in the log.
        """
        given = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for name, parse in _PARSERS.items():
            text = given.get(_variable(name), "").strip()
            if text:
                values[name] = _parsed(name, text, parse)
        if "service_name" not in values and given.get("OTEL_SERVICE_NAME", "").strip():
            # The variable is not ours, so what S3 keys cannot carry is replaced rather than refused.
            values["service_name"] = _as_service_name(given["OTEL_SERVICE_NAME"])
        settings = cls(**values)
        for name in sorted(given):
            if name.startswith(_PREFIX) and name not in _VARIABLES:
                settings.logger.warning("profiling: %r is no setting and is ignored: %s", name, _meant_by(name))
        return settings

    @property
    def bucket_name(self) -> str:
        """The bucket that is written to: `{bucket}-{environment}`, the suffix added once."""
        bucket = self.bucket or DEFAULT_BUCKET
        if self.environment is None or bucket.endswith(f"-{self.environment}"):
            return bucket
        return f"{bucket}-{self.environment}"

    @property
    def directory(self) -> Path | None:
        """Where captures go when the store is a local directory."""
        return None if self.store == "s3" else Path(unquote(urlsplit(self.store).path))

    @property
    def uploads(self) -> bool:
        """Whether captures go to a store: when enabled, or when somebody named a bucket or a store."""
        return self.enabled or self.bucket is not None or self.store != "s3"


def _check(settings: Settings) -> None:
    def refuse(name: str, remedy: str) -> None:
        raise SettingsError(name, "…" if name == "token" else getattr(settings, name), remedy)

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", settings.service_name):
        refuse("service_name", "cannot be part of a key: use letters, digits, '.', '_' and '-', at most 128")
    if settings.environment is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", settings.environment):
        refuse("environment", "cannot end a bucket's name: use lower-case letters, digits and '-', such as prod")
    if not _is_bucket_name(settings.bucket_name):
        refuse("bucket", f"makes {settings.bucket_name!r}, no S3 bucket name: use 3 to 63 of a-z, 0-9, '.', '-'")
    if settings.bucket_owner is not None and not re.fullmatch(r"[0-9]{12}", settings.bucket_owner):
        refuse("bucket_owner", "is no AWS account: write its 12 digits")
    if not 1 <= settings.duration <= _LONGEST_SECONDS:
        refuse("duration", "is out of range: use 1s or more, at most 8760h")
    if not settings.interval <= _LONGEST_SECONDS:
        refuse("interval", "is out of range: use at most 8760h")
    if settings.interval < settings.duration:
        refuse(
            "interval",
            f"is shorter than PROFILE_DURATION ({format_duration(settings.duration)}): windows may not "
            f"overlap, so use {format_duration(settings.duration)} or more, or shorten PROFILE_DURATION",
        )
    if not settings.types:
        refuse("types", f"captures nothing: name some of {', '.join(KINDS)}")
    if unknown := [kind for kind in settings.types if kind not in KINDS]:
        refuse("types", f"names {', '.join(map(repr, unknown))}: choose from {', '.join(KINDS)}")
    if len(set(settings.types)) != len(settings.types):
        refuse("types", "names a kind twice: name each once")
    if settings.store != "s3" and not _is_file_url(settings.store):
        refuse("store", "is no store: use s3, or file:///directory with an absolute path")
    if settings.token is not None and not re.fullmatch(r"[\x21-\x7e]{8,1024}", settings.token):
        refuse("token", "is no usable secret: use 8 to 1024 visible ASCII characters without spaces")
    if not 1 <= settings.max_seconds <= 86_400:
        refuse("max_seconds", "is out of range: use 1 to 86400 seconds")
    if settings.engine not in ENGINES:
        refuse("engine", f"is no engine: choose from {', '.join(ENGINES)}")
    if not 1 <= settings.sample_rate <= 1000:
        refuse("sample_rate", "is out of range: use 1 to 1000 samples a second")
    if not 0 < settings.max_overhead <= 1:
        refuse("max_overhead", "is out of range: use more than 0% and at most 100% of a core")
    if settings.spool_max_bytes < 1024 * 1024:
        refuse("spool_max_bytes", "is too small to hold captures: use 1MiB or more")
    if settings.slow_request is not None and settings.slow_request <= 0:
        refuse("slow_request", "is out of range: use more than 0s, or unset it")


def _is_bucket_name(name: str) -> bool:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name) or ".." in name:
        return False
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return True
    return False


def _is_file_url(store: str) -> bool:
    try:
        url = urlsplit(store)
    except ValueError:
        return False
    if "\0" in unquote(url.path):
        return False
    plain = not (url.query or url.fragment) and url.netloc in ("", "localhost")
    return url.scheme == "file" and plain and url.path.startswith("/") and url.path != "/"


def _as_service_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text.strip()).lstrip("._-")[:128] or DEFAULT_SERVICE_NAME


def _variable(name: str) -> str:
    special = {"bucket": "PROFILE_S3_BUCKET", "bucket_owner": "PROFILE_S3_BUCKET_OWNER"}
    return special.get(name, f"{_PREFIX}{name.upper()}")


def _meant_by(variable: str) -> str:
    from difflib import get_close_matches  # most services have no need of it

    names = {known.removeprefix(_PREFIX): known for known in _VARIABLES}
    close = get_close_matches(variable.removeprefix(_PREFIX).upper(), names, n=1)
    return f"{names[close[0]]} is one" if close else "none has a name like it"


def _parsed(name: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise SettingsError(name, "…" if name == "token" else text, str(error)) from None


def _parse_switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("is neither on nor off: use 1, true, yes, on or 0, false, no, off")


def _parse_whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise ValueError("is not a whole number: write digits only, such as 100")
    return int(text)


def _parse_kinds(text: str) -> tuple[str, ...]:
    return tuple(kind.strip().lower() for kind in text.split(",") if kind.strip())


def _parse_engine(text: str) -> EngineName:
    return cast(EngineName, text.lower())


_PARSERS: Mapping[str, Callable[[str], object]] = {
    "enabled": _parse_switch,
    "bucket": str,
    "bucket_owner": str,
    "environment": str,
    "service_name": str,
    "interval": parse_duration,
    "duration": parse_duration,
    "types": _parse_kinds,
    "store": str,
    "token": str,
    "max_seconds": _parse_whole,
    "engine": _parse_engine,
    "sample_rate": _parse_whole,
    "max_overhead": parse_share,
    "spool_dir": Path,
    "spool_max_bytes": parse_size,
    "slow_request": parse_duration,
}
_VARIABLES = frozenset(map(_variable, _PARSERS))
assert set(_PARSERS) | {"logger"} == {f.name for f in fields(Settings)}
