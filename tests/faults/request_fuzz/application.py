"""The application behind the middlewares: what it answers shows all that has reached it, and repeats none of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any


class ApplicationError(Exception):
    """What some of its requests end with."""


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest().encode()


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once, in pieces, or raises, as the digest of what it is asked has it."""
    digest = _digest(sorted((key, value) for key, value in scope.items() if key != "extensions"))
    if digest[0] in b"01":
        raise ApplicationError(digest)
    body = b""
    if digest[1] in b"01234567" and scope.get("type") == "http":
        message = await receive()
        while message["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
            message = await receive()
    status = 500 if digest[2] in b"0" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-digest", digest)]})
    if digest[3] in b"0123":
        await send({"type": "http.response.body", "body": digest, "more_body": True})
    await send({"type": "http.response.body", "body": _digest(body)})


def wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Likewise."""
    seen = sorted((key, value) for key, value in environ.items() if not key.startswith(("wsgi.", "werkzeug.")))
    digest = _digest(seen)
    if digest[0] in b"01":
        raise ApplicationError(digest)
    body = environ["wsgi.input"].read() if digest[1] in b"01234567" else b""
    write = start_response("500 Oh" if digest[2] in b"0" else "200 OK", [("x-digest", digest.decode())])
    if digest[3] in b"01":
        write(b"written")
    if digest[3] in b"234567":
        return (piece for piece in (digest, _digest(body)))
    return [digest, _digest(body)]
