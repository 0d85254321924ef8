"""Who may use /debug/pprof/: whoever knows the token; without one, a developer on the same machine.

Exposed profiling endpoints are a recurring incident: paths, names and arguments leak, and anyone can make the
server work. So everybody else is refused before anything is done.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from urllib.parse import unquote_plus

from profiling_middleware.config import LOCAL_ENVIRONMENTS, Settings
from profiling_middleware.middleware.messages import AdminRequest, AdminResponse, error
from profiling_middleware.middleware.peer import foreign_user

_PROXY_HEADERS = ("forwarded", "x-real-ip", "via")
_PROXY_PREFIX = "x-forwarded-"


def refusal(request: AdminRequest, settings: Settings) -> AdminResponse | None:
    """The answer to one who may not, None for one who may."""
    if settings.token is not None:
        return None if _knows(request, settings.token) else _ask_for_token()
    reason = _stranger(request, settings)
    return error(403, f"profiling: refused: {reason}") if reason else None


def names_token(request: AdminRequest, settings: Settings) -> bool:
    """Whether the token stands where answers and logs repeat what they were sent."""
    repeated = (request.method, request.path, unquote_plus(request.query))
    return settings.token is not None and any(settings.token in part for part in repeated)


def _ask_for_token() -> AdminResponse:
    challenge = ("WWW-Authenticate", 'Basic realm="profiling", charset="UTF-8"')
    message = "profiling: refused: send PROFILE_TOKEN as 'Authorization: Bearer …' or as the password of Basic"
    return error(401, message, challenge, ("WWW-Authenticate", 'Bearer realm="profiling"'))


def _knows(request: AdminRequest, token: str) -> bool:
    given = request.all("authorization")
    # Two headers may mean that a proxy and this server look at different ones.
    if len(given) != 1:
        return False
    # White space as HTTP has it, and no other that Python knows.
    scheme, _, credentials = given[0].strip(" \t").partition(" ")
    secret = credentials.strip(" \t").encode("utf-8", "surrogatepass")
    if scheme.lower() == "basic":
        try:
            secret = base64.b64decode(secret, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return False
    elif scheme.lower() != "bearer":
        return False
    # Digests are compared, so that the time tells neither the content nor the length.
    return hmac.compare_digest(hashlib.sha256(secret).digest(), hashlib.sha256(token.encode()).digest())


def _stranger(request: AdminRequest, settings: Settings) -> str | None:
    """Why this is not a developer on the same machine; None when it is."""
    if settings.environment not in LOCAL_ENVIRONMENTS:
        known = "not set" if settings.environment is None else repr(settings.environment)
        return (
            "set PROFILE_TOKEN and send it, or, on a developer's machine, set PROFILE_ENVIRONMENT to dev, local "
            f"or test (it is {known})"
        )
    remedy = "; set PROFILE_TOKEN and send it"
    if request.peer is None or not _is_loopback(request.peer):
        return f"only this machine may ask without a token, and the peer is {request.peer or 'unknown'}{remedy}"
    hosts = request.all("host")
    if len(hosts) != 1 or not _names_loopback(hosts[0]):
        return f"the Host header does not name this machine's loopback, such as localhost{remedy}"
    proxied = [name for name, _ in request.headers if name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIX)]
    if proxied:
        return f"the request came through a proxy ({', '.join(sorted(set(proxied)))}){remedy}"
    if request.http_version in ("1.0", "0.9"):
        # What proxies speak to their upstream unless told otherwise; every client people use speaks 1.1 or later.
        return f"HTTP/{request.http_version} is what a proxy speaks{remedy}"
    if _from_elsewhere(request, hosts[0]):
        return f"the request comes from a page of another site{remedy}"
    user = foreign_user(request.peer_port, request.own_port)
    if user is not None:
        return f"the client runs as user id {user}, as a proxy would, and this service does not{remedy}"
    return None


def _from_elsewhere(request: AdminRequest, host: str) -> bool:
    """A page of another site in the developer's own browser: its requests come from loopback, too."""
    if any(value.strip().lower() not in ("same-origin", "none") for value in request.all("sec-fetch-site")):
        return True
    own = (f"http://{host}".lower(), f"https://{host}".lower())
    return any(value.strip().lower() not in own for value in request.all("origin"))


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _names_loopback(host: str) -> bool:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::[0-9]{1,5})?", host)
    if match is None:
        return False
    name = match[1] or match[2]
    return name.lower() == "localhost" or _is_loopback(name)
