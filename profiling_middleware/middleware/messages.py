"""A request to the routes and its response, as neither ASGI nor WSGI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from profiling_middleware.model import Body

PIECE_BYTES = 64 * 1024
"""So much is given to a server at once: what it holds for a client that does not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRequest:
    """A request below `/debug/pprof`."""

    method: str
    path: str
    """The path within the application, beginning with PREFIX."""
    root: str
    """What stands before it on this server, for links."""
    query: str = field(repr=False)
    headers: Sequence[tuple[str, str]] = field(repr=False)
    """Names in lower case, repeated ones repeated. One of them holds a secret, so neither is in its repr."""
    peer: str | None
    """The address at the other end; None where there is none, as on a unix socket."""
    peer_port: int | None = None
    own_port: int | None = None
    """The ports of the two ends, None where unknown."""
    http_version: str
    """Such as `1.1`."""
    can_wait: bool
    """False on a server that does one thing at a time: a request that waits would stop the whole worker."""

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key == name]


@dataclass(frozen=True, slots=True)
class AdminResponse:
    status: int
    body: Body
    media_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = field(default=())

    def all_headers(self) -> list[tuple[str, str]]:
        """The headers to send, those that every response has included."""
        return [
            ("Content-Type", self.media_type),
            ("Content-Length", str(len(self.body))),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
            *self.headers,
        ]


class Awaited(Protocol):
    """An answer that takes a while."""

    @property
    def result(self) -> Future[Any]:
        """Done once `response` may be asked."""

    def cancel(self) -> None:
        """The client has left."""

    def response(self) -> AdminResponse:
        """The answer once `result` is there."""

    def break_off(self) -> None:
        """The client has not read it in time."""

    def close(self) -> None:
        """The client has the answer, or is gone."""


def pieces(body: Body) -> Iterator[bytes]:
    """A body little by little."""
    for chunk in (body,) if isinstance(body, bytes) else body.chunks():
        for begin in range(0, len(chunk), PIECE_BYTES):
            yield chunk[begin : begin + PIECE_BYTES]


def error(status: int, message: str, *headers: tuple[str, str]) -> AdminResponse:
    """An error in words. `go tool pprof` shows the body of an error only with this header."""
    return AdminResponse(status, f"{message}\n".encode("utf-8", "replace"), headers=(("X-Go-Pprof", "1"), *headers))


def not_readable(why: Exception) -> AdminResponse:
    """The answer where a server hands on what is no request."""
    return error(400, f"profiling: this is not a request that can be read ({type(why).__name__})")
