"""Sends bytes to a real uvicorn: requests, and what only looks like one."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import uvicorn

from profiling_middleware.config import Settings
from profiling_middleware.middleware.asgi import ProfilingMiddleware
from request_fuzz.cases import Cases
from request_fuzz.watch import FuzzFailure, Watch, must_not_show

_SECONDS = 20.0
_PATIENCE = 0.2
_ALIVE = b"GET /alive HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def _application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    # A CONNECT that is granted is HTTP no longer, which h11 says by raising.
    status = 405 if scope["method"] == "CONNECT" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[int]:
    """A uvicorn with the middleware on a port."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = ProfilingMiddleware(_application, settings=settings)
    config = uvicorn.Config(
        app, loop="asyncio", lifespan="off", log_config=None, log_level="warning", ws="none", timeout_keep_alive=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        app._service.stop()
        server.should_exit = True
        thread.join(_SECONDS)
        listening.close()
        if thread.is_alive():
            raise FuzzFailure("the server does not end")


def drive(settings: Settings, rng: random.Random, number: int, watch: Watch, counts: Counter[str]) -> None:
    """Sends so many to a service with these settings. Raises FuzzFailure, which names the bytes."""
    cases = Cases(rng)
    with serving(settings) as port:
        for _ in range(number):
            data, may = _bytes(cases, settings)
            try:
                _drive_one(port, data, may, settings, watch, counts)
            except FuzzFailure as failure:
                raise FuzzFailure(f"{failure}\nbytes: {data!r}\n{settings!r}") from None


def _drive_one(port: int, data: bytes, may: bool, settings: Settings, watch: Watch, counts: Counter[str]) -> None:
    work = watch.work
    answer = _exchange(port, data, leaves=may)
    if _exchange(port, _ALIVE, leaves=False).partition(b"\r\n\r\n")[2] != b"hello":
        raise FuzzFailure("the server answers nobody any more")
    must_not_show(settings.token, answer, watch.take_lines())
    counts["socket"] += 1
    status = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "none"
    counts[f"status {status}"] += 1
    if status.startswith("5") and status != "503":
        raise FuzzFailure(f"answered {answer[:500]!r}")
    if not may and (watch.work != work or b"X-Profile-" in answer):
        raise FuzzFailure(f"not refused: {answer[:500]!r}")


def _exchange(port: int, data: bytes, *, leaves: bool) -> bytes:
    """What comes back until the server has said all of it; one who `leaves` does not wait for a capture."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE if leaves else _SECONDS) as connection:
        try:
            connection.sendall(data)
            while not _is_whole(answer):
                block = connection.recv(65536)
                if not block:
                    break
                answer += block
        except ConnectionError:
            return answer
        except TimeoutError:
            if not leaves:
                raise FuzzFailure("hangs") from None
    return answer


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(body) >= int(lengths[0])


def _bytes(cases: Cases, settings: Settings) -> tuple[bytes, bool]:
    """A request that ends, and whether its sender may have what it asks for."""
    rng = cases.rng
    # Without the token nothing may come of it, whatever the bytes are taken for.
    may = settings.token is None or rng.random() < 0.3
    case = cases.make(settings.token if may else None)
    target = case.path.encode("utf-8", "surrogatepass").replace(b" ", b"%20") or b"/"
    if case.query:
        target += b"?" + case.query.encode()
    head = b" ".join([case.method.encode("latin-1"), target, b"HTTP/" + case.version.encode()])
    lines = [head, *(name + b": " + value for name, value in case.headers), b"Connection: close"]
    data = b"\r\n".join(lines) + b"\r\n\r\n" + b"".join(case.body)
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        where = rng.randrange(len(data))
        data = data[:where] + rng.choice([b"", b"\x00", b"\r\n", b"\n", b" ", b"\xff", b":", b"\t"]) + data[where + 1 :]
    # Whatever it was taken for, this ends it: a body that was announced, or a head that had no end.
    return data + b"\r\n\r\n" + b"\x00" * 8 + b"\r\n\r\n", may
