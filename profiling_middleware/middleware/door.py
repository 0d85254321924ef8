"""Where a process whose profiling is off can be reached by the other workers: it has no thread that waits there.

What its server waits with anyway, asyncio's event loop or the selector of gunicorn's threaded worker, tells of those
who come; the profiler is loaded when one of them has said something.
"""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from profiling_middleware.config import LOCAL_ENVIRONMENTS, Settings
from profiling_middleware.keys import new_instance_id
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.threads import OwnThread
from profiling_middleware.workers.meeting import Meeting, Worker

_MAX_WAITING = 32


class Watcher(Protocol):
    """What a server waits with."""

    def watch(self, descriptor: int, on_readable: Callable[[], object]) -> None:
        """Calls `on_readable` again and again while there is something to read."""

    def unwatch(self, descriptor: int) -> None:
        """No more."""


def may_be_asked(settings: Settings) -> bool:
    """Whether anybody at all may use the routes; otherwise nobody comes."""
    return settings.token is not None or settings.environment in LOCAL_ENVIRONMENTS


class Door:
    """A listening socket, and those who have come and said nothing yet. On the thread of the watcher."""

    def __init__(self, settings: Settings, watcher: Watcher, welcome: Callable[[socket.socket], object]) -> None:
        """Opens it. `welcome` gets each connection that has a question, on a thread of its own. Raises OSError."""
        self.instance = new_instance_id()
        self._watcher, self._welcome, self._logger = watcher, welcome, settings.logger
        self._waiting: dict[int, socket.socket] = {}
        self._meeting = Meeting(settings)
        me = Worker(pid=os.getpid(), instance=self.instance, enabled=False, started_ns=None)
        try:
            self._socket = self._meeting.listen(me)
        except OSError:
            self._meeting.close()
            raise
        # Cannot be taken back, so it knows the door only while that lives.
        abandon = weakref.WeakMethod(self._abandon)
        os.register_at_fork(after_in_child=lambda: (method := abandon()) and method())
        THIS_PROCESS.aliases.add(self.instance)
        watcher.watch(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Nobody comes any more."""
        if self._socket.fileno() >= 0:
            self._watcher.unwatch(self._socket.fileno())
            for descriptor in self._waiting:
                self._watcher.unwatch(descriptor)
            with suppress(OSError):
                self._meeting.leave(self.instance)
            self._abandon()

    def _accept(self) -> None:
        # The server's own loop calls: whatever it raised would end that.
        try:
            self._let_in()
        except Exception as error:
            # Such as no descriptor: it would be called for the same connection again and again.
            self._logger.warning("profiling: other workers cannot reach this one any more: %s", error)
            with suppress(Exception):
                self.close()

    def _let_in(self) -> None:
        connection = self._meeting.accept(self._socket)
        if connection is None:
            return
        if len(self._waiting) >= _MAX_WAITING and (longest := self._take(next(iter(self._waiting)))) is not None:
            longest.close()
        descriptor = connection.fileno()
        self._waiting[descriptor] = connection
        self._watcher.watch(descriptor, lambda: self._hear(descriptor))

    def _hear(self, descriptor: int) -> None:
        connection = self._take(descriptor)
        if connection is None:
            return  # it was let go in the same moment, to make room
        try:
            has_left = connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            has_left = True
        if has_left:
            connection.close()  # somebody who wanted to know whether this process lives
            return
        try:
            OwnThread(self._welcome, "profiling-workers", (connection,)).start()
        except Exception as error:  # no thread can be started
            connection.close()
            self._logger.warning("profiling: another worker got no answer: %s", error)

    def _take(self, descriptor: int) -> socket.socket | None:
        """It waits no more; None when it did not."""
        connection = self._waiting.pop(descriptor, None)
        if connection is not None:
            self._watcher.unwatch(descriptor)
        return connection

    def _abandon(self) -> None:
        """In a forked child, too: closes its copies of the parent's sockets."""
        THIS_PROCESS.aliases.discard(self.instance)
        self._socket.close()
        self._meeting.close()
        for connection in self._waiting.values():
            connection.close()
        self._waiting.clear()
