"""One keep-alive HTTP/1.1 connection: as little of a client as a load generator needs."""

from __future__ import annotations

import asyncio
import contextlib


class HttpError(Exception):
    """No whole answer: it was not HTTP, or it broke off."""


class HttpConnection:
    """Sends GET requests one after another, and connects again when the server has hung up meanwhile."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> int:
        """Ask for the path and read the whole answer; its status. Raises HttpError or OSError."""
        reused = self._streams is not None
        try:
            return await self._exchange(path)
        except (HttpError, OSError, ValueError) as error:
            await self.close()
            # A server may close an idle connection at any moment; on a fresh one it is a failure.
            if not (reused and isinstance(error, _HungUpError)):
                raise HttpError(f"{path}: {error or type(error).__name__}") from error
        except BaseException:
            # An answer left half read would be taken for that of the next request.
            self.abort()
            raise
        return await self.get(path)

    async def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):  # It is closed either way.
                await writer.wait_closed()

    def abort(self) -> None:
        """Hang up at once, in the middle of an answer if need be."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _exchange(self, path: str) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{self._port}\r\n\r\n".encode())
            await writer.drain()
            status_line = await reader.readline()
        except ConnectionError as error:
            raise _HungUpError(str(error)) from error
        if not status_line:
            raise _HungUpError("the server hung up before it answered")
        status = _status(status_line)
        keep_alive = await _read_rest(reader)
        if not keep_alive:
            await self.close()
        return status


class _HungUpError(HttpError):
    """The server closed the connection before the first byte of an answer."""


def _status(line: bytes) -> int:
    version, _, rest = line.partition(b" ")
    code = rest[:3]
    if not version.startswith(b"HTTP/1.") or not code.isdigit():
        raise HttpError(f"not HTTP: {line[:40]!r}")
    return int(code)


async def _read_rest(reader: asyncio.StreamReader) -> bool:
    """Read headers and body; whether the connection can be used again."""
    headers: dict[str, str] = {}
    while (line := await _line(reader)).strip():
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip().lower()
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await _line(reader), 16):
            await _skip(reader, size + 2)
        while (await _line(reader)).strip():
            pass  # Trailers.
    elif "content-length" in headers:
        await _skip(reader, int(headers["content-length"]))
    else:
        await reader.read()
        return False
    return headers.get("connection") != "close"


async def _line(reader: asyncio.StreamReader) -> str:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise HttpError("the answer broke off")
    return line.decode("latin-1")


async def _skip(reader: asyncio.StreamReader, size: int) -> None:
    while size > 0:
        block = await reader.read(min(size, 65536))
        if not block:
            raise HttpError("the answer broke off")
        size -= len(block)
