"""Requests made up by chance: most of them near the routes, where what is wrong would matter."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass, field
from typing import Any

PREFIX = "/debug/pprof"
_NAMES = ["", "/", "/cpu", "/profile", "/wall", "/block", "/mutex", "/lock", "/trace", "/cmdline", "/heap", "/symbol"]
_PATHS = [
    "/",
    "",
    "*",
    "/orders",
    "/debug",
    "/debug/",
    "/debug/pprofile",
    "/static/../etc/passwd",
    "/x/debug/pprof/cpu",
]
_ROOTS = ["", "", "", "", "/shop", "/shop/", "/debug", "/", "//evil.example", "/\u00e9", "/debug/pprof"]
_PIECES = ["/", "//", "/../", "/./", "%2F", "%2f", "%64", "%00", ";", ";x", "?", "#", " ", "\t", "\r\n", "\x00", "\\", ".", "\u00e9",
           "\u017f", "\u2215", "\uff44", "\udcff", "A", "debug", "pprof", "+", "%", "\x7f", "a" * 300]  # fmt: skip
_METHODS = ["GET"] * 12 + [
    "POST",
    "PUT",
    "HEAD",
    "OPTIONS",
    "DELETE",
    "TRACE",
    "CONNECT",
    "get",
    "",
    "G\x00T",
    "M" * 500,
]
_VERSIONS = ["1.1"] * 8 + ["1.0", "0.9", "2", "2.0", "3", "", "1.1 ", "x"]
_PARAMETERS = [
    "seconds",
    "format",
    "debug",
    "upload",
    "wait",
    "detail",
    "last",
    "token",
    "gc",
    "",
    "SECONDS",
    "seconds[]",
]
_VALUES = ["0", "1", "0.01", "30", "-1", "1e9", "nan", "inf", "\u0661", "html", "text", "pprof", "speedscope", "perfetto", "full", "long",
           "", "%00", "%", "%ff", "a" * 100, "1;2", "301", "'", "\"", "<script>", "../..", "%F0%9F%98%80", "1 ", "+1", "0x1", "1_0"]  # fmt: skip
_PEERS = ["127.0.0.1"] * 6 + [
    "127.9.9.9",
    "::1",
    "::ffff:127.0.0.1",
    "10.0.0.1",
    "::",
    "0.0.0.0",
    "",
    "localhost",
    "1",
    "127.1",
]
_HOSTS = ["localhost:8000"] * 6 + [
    "127.0.0.1",
    "[::1]:1",
    "evil.example",
    "localhost.evil.example",
    "",
    "localhost,evil",
    "[::1",
    "\xff",
]
_HEADERS = ["origin", "sec-fetch-site", "x-forwarded-for", "x-forwarded-host", "forwarded", "via", "x-real-ip", "host", "cookie",
            "accept", "content-length", "transfer-encoding", "x", "", "x-forwarded-", "X-Forwarded-For", "authorization ", "auth\xff"]  # fmt: skip
_HEADER_VALUES = ["", "127.0.0.1", "none", "cross-site", "same-origin", "http://localhost:8000", "https://evil.example", "null", "1",
                  "gzip", "\xff\xfe", "a\r\nb: c", "\x00", "x" * 2000, "chunked"]  # fmt: skip
ODD: list[Any] = [None, "", "x", b"", b"\xff", 0, -1, 2**70, [], {}, (), ("127.0.0.1",), ("127.0.0.1", "x"), (1, 2, 3), [b"a"],
                  [(b"a",)], [("a", "b")], [(None, None)], "\ud800", True, 1.5, object]  # fmt: skip
ODD_KEYS = [
    "method",
    "path",
    "raw_path",
    "root_path",
    "query_string",
    "headers",
    "client",
    "server",
    "http_version",
    "scheme",
    "type",
]


@dataclass(slots=True)
class Case:
    """One request, as neither protocol."""

    method: str
    path: str
    root: str
    query: str
    headers: list[tuple[bytes, bytes]]
    peer: str
    version: str
    body: list[bytes]
    patient: bool
    """Whether the client waits for a capture, which is a short one; otherwise it leaves soon."""
    odd: dict[str, Any] = field(default_factory=dict)
    """What stands in a scope or an environ instead; `...` for nothing at all."""
    kind: str = "http"


class Cases:
    """Makes requests up. The same random numbers make the same ones."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def make(self, token: str | None) -> Case:
        """One for a service with this token."""
        rng = self.rng
        root = rng.choice(_ROOTS)
        path = self._path()
        if root and rng.random() < 0.7:
            path = root + path
        case = Case(
            method=rng.choice(_METHODS),
            path=path,
            root=root,
            query=self._query(token),
            headers=self.headers(token),
            peer=rng.choice(_PEERS),
            version=rng.choice(_VERSIONS),
            body=[rng.randbytes(rng.choice([0, 1, 100, 5000])) for _ in range(rng.choice([0, 0, 1, 3]))],
            patient=False,
            odd=self._odd() if rng.random() < 0.15 else {},
            kind=rng.choice(["http"] * 18 + ["websocket", "something else"]),
        )
        case.patient = "seconds=0.01" in case.query and rng.random() < 0.5
        return self._let_in(case, token) if rng.random() < 0.4 else case

    def _let_in(self, case: Case, token: str | None) -> Case:
        """The same from one who may, so that not all of them end at the door."""
        case.method, case.version, case.peer, case.kind, case.odd = "GET", "1.1", "127.0.0.1", "http", {}
        case.headers = [(b"host", b"localhost:8000")]
        if token is not None:
            case.headers.append((b"authorization", b"Bearer " + token.encode()))
        return case

    def headers(self, token: str | None) -> list[tuple[bytes, bytes]]:
        """Some, in some order; with a token often one of those that hold it, in the right way or a wrong one."""
        rng = self.rng
        found: list[tuple[bytes, bytes]] = []
        if rng.random() < 0.95:
            found.append((b"host", rng.choice(_HOSTS).encode("latin-1")))
        if rng.random() < 0.25:
            for _ in range(rng.choice([1, 1, 2, 5])):
                found.append((rng.choice(_HEADERS).encode("latin-1"), rng.choice(_HEADER_VALUES).encode("latin-1")))
        if rng.random() < 0.6:
            found += self._authorization(token or "whatever-it-is")
        if rng.random() < 0.1:
            rng.shuffle(found)
        return found

    def _authorization(self, token: str) -> list[tuple[bytes, bytes]]:
        rng, secret = self.rng, token.encode()
        name = rng.choice(
            [b"authorization", b"Authorization", b"AUTHORIZATION", b"authorization", b"proxy-authorization"]
        )
        basic = base64.b64encode(b"me:" + secret)
        value = rng.choice([b"Bearer " + secret, b"Basic " + basic, b"bearer  " + secret + b"\t"])
        if rng.random() < 0.5:
            value = rng.choice(
                [
                    secret,
                    b"Bearer " + secret[:-1],
                    b"Bearer " + secret + b"x",
                    b"Bearer " + secret.swapcase(),
                    b"Token " + secret,
                    b"Bearer\xa0" + secret,
                    b"Bearer " + secret + b"\x00",
                    b"Bearer " + secret + b", Bearer " + secret,
                    b"Basic " + basic[:-3],
                    b"Basic " + base64.b64encode(secret + b":"),
                    b"Basic \xff",
                    b"",
                    b"Bearer",
                    rng.randbytes(20),
                    b"Bearer " + rng.randbytes(30),
                ]
            )
        return [(name, value)] * rng.choice([1] * 9 + [2])

    def _path(self) -> str:
        rng = self.rng
        if rng.random() < 0.2:
            return rng.choice(_PATHS)
        path = PREFIX + rng.choice(_NAMES)
        for _ in range(rng.choice([0, 0, 0, 0, 0, 1, 1, 2, 5])):
            where = rng.randrange(len(path) + 1)
            path = path[:where] + rng.choice([rng.choice(_PIECES), ""]) + path[where + rng.choice([0, 0, 1]) :]
        return path

    def _query(self, token: str | None) -> str:
        rng = self.rng
        if rng.random() < 0.1:
            return bytes(rng.randrange(1, 256) for _ in range(rng.randrange(30))).decode("latin-1")
        values = [*_VALUES, *([token] * 3 if token else [])]
        pairs = [f"{rng.choice(_PARAMETERS)}={rng.choice(values)}" for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 30]))]
        return rng.choice(["&", "&", "&", ";", "&&"]).join(pairs)

    def _odd(self) -> dict[str, Any]:
        rng = self.rng
        return {rng.choice(ODD_KEYS): rng.choice([..., *ODD]) for _ in range(rng.choice([1, 1, 2]))}
