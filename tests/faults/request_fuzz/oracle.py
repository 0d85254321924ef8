"""What must come of a request, said in other words than the middlewares say it."""

from __future__ import annotations

import base64
import re
from typing import Any

from profiling_middleware.config import Settings

STATUSES = {200, 202, 308, 400, 401, 403, 404, 405, 409, 413, 429, 499, 503}
"""What the routes may answer."""

REFUSALS = {400, 401, 403}

_PROXIES = re.compile(rb"(?i)x-forwarded-.*|forwarded|via|x-real-ip", re.DOTALL)
_LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|::1|::ffff:127\.0\.0\.1")
_HOST = re.compile(rb"(?i)(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])(?::\d{1,5})?")


def is_ours(kind: object, path: object, root: object) -> bool:
    """Whether a path belongs to the routes: `/debug/pprof` and what is below it, without the prefix of a mount."""
    if kind != "http" or not isinstance(path, str):
        return False
    if isinstance(root, str) and root and path.startswith(f"{root}/"):
        path = path[len(root) :]
    return path.split("/")[:3] == ["", "debug", "pprof"]


def must_be_refused(
    settings: Settings, headers: list[tuple[bytes, bytes]], peer: object, version: object, *, joined: bool = False
) -> bool:
    """Whether nobody with these headers may be let in; `joined` where equal headers come as one."""
    if settings.token is not None:
        return not _has_token(headers, settings.token.encode(), joined=joined)
    if settings.environment not in ("dev", "local", "test"):
        return True
    hosts = [value for name, value in headers if name.lower() == b"host"]
    return (
        not isinstance(peer, str)
        or _LOOPBACK.fullmatch(peer) is None
        or len(hosts) != 1
        or _HOST.fullmatch(hosts[0]) is None
        or any(_PROXIES.fullmatch(name) for name, _ in headers)
        or version in ("1.0", "0.9")
        or any(name.lower() == b"origin" and value.lower() != b"http://" + hosts[0].lower() for name, value in headers)
        or any(name.lower() == b"sec-fetch-site" and value not in (b"none", b"same-origin") for name, value in headers)
    )


def _has_token(headers: list[tuple[bytes, bytes]], token: bytes, *, joined: bool) -> bool:
    values = [value for name, value in headers if name.lower() == b"authorization"]
    if joined:
        values = [b",".join(values)] if values else []
    if len(values) != 1:
        return False
    found = re.fullmatch(rb"[ \t]*([A-Za-z]+) [ \t]*([^ \t].*?)[ \t]*", values[0], re.DOTALL)
    if found is None:
        return False
    scheme, secret = found[1].lower(), found[2]
    if scheme == b"basic" and re.fullmatch(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", secret):
        return base64.b64decode(secret).split(b":", 1)[1:] == [token]
    return scheme == b"bearer" and secret == token


def as_headers(given: Any) -> list[tuple[bytes, bytes]]:
    """Headers, if that is what they are; else none, which lets nobody in."""
    try:
        return [(bytes(name), bytes(value)) for name, value in given] if isinstance(given, list | tuple) else []
    except (TypeError, ValueError):
        return []
