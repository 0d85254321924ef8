"""How a capture gets to a WSGI client that reads it slowly, or not at all: piece by piece, and for a bounded time."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Iterator

from profiling_middleware import limits
from profiling_middleware.middleware.messages import Awaited, pieces
from profiling_middleware.model import Body
from profiling_middleware.threads import OwnThread


class CaptureBody:
    """A capture as a WSGI body. A client that has not read it after `READ_SECONDS` loses its connection."""

    def __init__(self, body: Body, pending: Awaited, client: socket.socket | None) -> None:
        """`client` is its socket, where the server hands it out; elsewhere the time is looked at between two pieces."""
        self._body, self._pending, self._client = body, pending, client
        self._until = time.monotonic() + limits.READ_SECONDS
        self._closed = threading.Event()
        self._lock = threading.Lock()
        if client is not None:
            with contextlib.suppress(RuntimeError):  # no thread to be had
                OwnThread(self._watch, "profiling-answer").start()

    def __iter__(self) -> Iterator[bytes]:
        for piece in pieces(self._body):
            if time.monotonic() >= self._until:
                self._break_off()
                raise ConnectionResetError(errno.ECONNRESET, "profiling: the client does not read what it asked for")
            yield piece
        self.close()

    def close(self) -> None:
        """The server calls it however it ends, and before it closes the socket."""
        with self._lock:
            self._closed.set()
        self._pending.close()

    def __del__(self) -> None:
        if not self._closed.is_set():  # a server that forgets
            self.close()

    def _watch(self) -> None:
        # A server that sends to a client that does not read waits in a system call, until there is no connection.
        if not self._closed.wait(max(0.0, self._until - time.monotonic())):
            self._break_off()

    def _break_off(self) -> None:
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            self._pending.break_off()
            if self._client is not None:
                with contextlib.suppress(OSError):
                    self._client.shutdown(socket.SHUT_RDWR)
