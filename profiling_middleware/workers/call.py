"""The worker that asks: one connection to another one. On the reactor's thread."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profiling_middleware.model import Body
from profiling_middleware.private_file import PrivateFile
from profiling_middleware.workers.merge import Part
from profiling_middleware.workers.messages import Garbage, Inbox, Question, to_frame, words
from profiling_middleware.workers.reactor import READABLE, Reactor

BEGIN_SECONDS = 5.0
"""For the other one to say that it has begun: one that is stopped, or holds the GIL that long, is given up."""
GRACE_SECONDS = 30.0
"""For its answer after the end of its capture, and then between two pieces of it."""
HURRY_SECONDS = 1.0
"""Likewise after it was told to end."""
_PIECE = 256 * 1024
_IN_MEMORY_BYTES = 1024 * 1024


class Call:
    """A handler: asks once, and tells `on_end` of a Part or why there is none."""

    events = READABLE

    def __init__(
        self,
        reactor: Reactor,
        connection: socket.socket,
        pid: int,
        instance: str,
        question: Question,
        *,
        max_bytes: int,
        directory: Path | None,
        on_end: Callable[[Call, Part | str], object],
    ) -> None:
        """A part has at most `max_bytes`; a big one is a file in `directory`."""
        self._reactor, self._socket = reactor, connection
        self.pid, self.instance = pid, instance
        self._question, self._max_bytes, self._directory, self._on_end = question, max_bytes, directory, on_end
        self._inbox = Inbox()
        self._begun = self._hurries = False
        self._size: int | None = None
        self._partial = ""
        self._body = bytearray()
        self._file: PrivateFile | None = None
        self.deadline: float | None = time.monotonic() + BEGIN_SECONDS

    @property
    def fileno(self) -> int:
        return self._socket.fileno()

    def begin(self) -> None:
        """Asks."""
        self._say(self._question.frame())

    def end_early(self, reason: str) -> None:
        """What it has is enough, and has to come soon."""
        self._hurries = True
        self.deadline = min(self.deadline or 0.0, time.monotonic() + HURRY_SECONDS)
        self._say(to_frame({"end": reason}))

    def on_ready(self) -> None:
        try:
            data = self._socket.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end("ended" if self._begun else "ended before it began")
            return
        self._inbox.feed(data)
        try:
            self._read()
        except Garbage as error:
            self._end(f"answered with {error}")
        except OSError as error:
            self._end(f"sent what finds no room here: {error.strerror}")

    def on_deadline(self) -> None:
        if not self._begun:
            self._end(f"did not begin within {BEGIN_SECONDS:g} s")
        else:
            self._end("did not answer in time")

    def on_failure(self) -> None:
        self._end("its answer was not understood; the log says why")

    def close(self) -> None:
        self._socket.close()

    def _say(self, frame: bytes) -> None:
        # A frame fits into an empty socket's buffer.
        try:
            self._socket.sendall(frame)
        except OSError:
            self._end("ended")

    def _read(self) -> None:
        while self._size is None:
            message = self._inbox.frame()
            if message is None:
                return
            if not self._understand(message):
                return
        self._keep(self._inbox.raw(self._size - self._length))
        if self._length == self._size:
            body: Body = bytes(self._body) if self._file is None else self._file
            self._end(Part(pid=self.pid, instance=self.instance, body=body, partial=self._partial))
        else:
            self.deadline = time.monotonic() + GRACE_SECONDS

    def _understand(self, message: dict[str, Any]) -> bool:
        """False when this was the end."""
        size = message.get("size")
        if "error" in message:
            self._end(words(message["error"]))
            return False
        if message.get("begun") is True and not self._begun:
            self._begun = True
            if not self._hurries:
                self.deadline = time.monotonic() + (self._question.seconds or 0.0) + GRACE_SECONDS
        elif self._begun and isinstance(size, int) and not isinstance(size, bool) and size > 0:
            if size > self._max_bytes:
                self._end(f"has {size} bytes, and {self._max_bytes} are allowed (PROFILE_SPOOL_MAX_BYTES)")
                return False
            self._size, self._partial = size, words(message.get("partial") or "")
            if size > _IN_MEMORY_BYTES:
                self._file = PrivateFile(self._directory)
        else:
            raise Garbage("something else than a capture")
        return True

    @property
    def _length(self) -> int:
        return len(self._body) if self._file is None else len(self._file)

    def _keep(self, data: bytes) -> None:
        if self._file is not None:
            self._file.append(data)
        else:
            self._body += data

    def _end(self, outcome: Part | str) -> None:
        if self._socket.fileno() >= 0:
            self._reactor.remove(self)
            self._on_end(self, outcome)
