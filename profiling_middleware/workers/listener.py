"""The worker that is asked: it listens, captures what another one wants, and answers. On the reactor's thread."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from profiling_middleware.model import Artifact
from profiling_middleware.recording import Recording, TooManyCaptures
from profiling_middleware.workers.meeting import Meeting, Worker
from profiling_middleware.workers.messages import Garbage, Inbox, Question, to_frame, words
from profiling_middleware.workers.reactor import READABLE, WRITABLE, Reactor

MAX_VISITS = 32
QUESTION_SECONDS = 5.0
"""For a question to be there after its connection."""
PROGRESS_SECONDS = 30.0
"""For the other one to take some of an answer."""
_STAY_SECONDS = 3600.0
_REST_SECONDS = 1.0
_RECEIVED_BYTES = 4096

Take = Callable[[Question], Recording]


class Visits:
    """Those who are being answered."""

    def __init__(self, reactor: Reactor, take: Take, logger: logging.Logger) -> None:
        """`take` begins a capture."""
        self._reactor, self._take, self._logger = reactor, take, logger
        self._visits: set[Visit] = set()
        self._changed = threading.Condition()

    def begin(self, connection: socket.socket) -> None:
        """Answers whoever has connected, or hangs up when there are too many."""
        if len(self._visits) >= MAX_VISITS:
            connection.close()
            return
        visit = Visit(self._reactor, connection, self._take, self._logger, self._forget)
        self._visits.add(visit)
        self._reactor.add(visit)

    def wait_until_over(self, timeout: float) -> bool:
        """Until nobody waits for an answer; False when `timeout` seconds were not enough. From any thread."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._visits, timeout)

    def _forget(self, visit: Visit) -> None:
        with self._changed:
            self._visits.discard(visit)
            self._changed.notify_all()


class Listener:
    """A handler: the socket on which this process can be reached."""

    def __init__(self, reactor: Reactor, meeting: Meeting, worker: Worker, visits: Visits) -> None:
        """Listens from now on. Raises OSError. `meeting` is closed with this."""
        self.events = READABLE
        self._reactor, self._meeting, self._worker, self._visits = reactor, meeting, worker, visits
        self._socket = meeting.listen(worker)
        self.deadline: float | None = time.monotonic() + _STAY_SECONDS

    @property
    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def since_ns(self) -> int | None:
        return self._worker.started_ns

    def on_ready(self) -> None:
        try:
            connection = self._meeting.accept(self._socket)
        except OSError:
            # Such as no descriptor: until there is one it would be called again and again.
            self.events, self.deadline = 0, time.monotonic() + _REST_SECONDS
            return
        if connection is not None:
            self._visits.begin(connection)

    def on_deadline(self) -> None:
        self.events, self.deadline = READABLE, time.monotonic() + _STAY_SECONDS
        with suppress(FileNotFoundError):
            self._meeting.stay(self._worker.instance)

    def on_failure(self) -> None:
        self.leave()

    def leave(self) -> None:
        """Nobody finds it any more; those who have found it are answered."""
        with suppress(OSError):
            self._meeting.leave(self._worker.instance)
        self._reactor.remove(self)

    def close(self) -> None:
        self._socket.close()
        self._meeting.close()


class Visit:
    """A handler: one connection of another worker, its question and its answer."""

    def __init__(
        self,
        reactor: Reactor,
        connection: socket.socket,
        take: Take,
        logger: logging.Logger,
        on_end: Callable[[Visit], object],
    ) -> None:
        self._reactor, self._socket = reactor, connection
        self._take, self._logger, self._on_end = take, logger, on_end
        self._inbox = Inbox()
        self._recording: Recording | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._sending = memoryview(b"")
        self._answered = False
        self.deadline: float | None = time.monotonic() + QUESTION_SECONDS

    @property
    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def events(self) -> int:
        return READABLE | (WRITABLE if self._sending else 0)

    def on_ready(self) -> None:
        try:
            self._receive()
            self._send()
        except OSError:
            self._leave()

    def on_deadline(self) -> None:
        self._leave()

    def on_failure(self) -> None:
        self._leave()

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVED_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionResetError
        if self._answered:
            return
        self._inbox.feed(data)
        try:
            while (message := self._inbox.frame()) is not None:
                if self._recording is None:
                    self._begin(Question.of(message))
                elif "end" in message and not self._answered:
                    self._recording.end_early(words(message["end"]))
        except Garbage as error:
            self._refuse(error)

    def _begin(self, question: Question) -> None:
        self.deadline = None  # the capture has its own
        try:
            recording = self._recording = self._take(question)
        except Exception as error:
            expected = isinstance(error, ValueError | TooManyCaptures | RuntimeError)
            if not expected:
                self._logger.exception("profiling: what another worker asked for could not be begun")
            self._refuse(error if expected else f"failed ({type(error).__name__})")
            return
        self._chunks = iter((to_frame({"begun": True}),))
        recording.result.add_done_callback(lambda _: self._reactor.call_soon(self._answer))

    def _answer(self) -> None:
        if self._recording is None or self._socket.fileno() < 0:
            return
        failure = self._recording.result.exception(0)
        if failure is not None:
            self._refuse(f"failed ({type(failure).__name__})")
        else:
            self._answered = True
            self._chunks = _joined(self._chunks, _answer(self._recording.result.result(0).artifact))
        self._try_to_send()

    def _refuse(self, why: object) -> None:
        self._answered = True
        self._chunks = _joined(self._chunks, iter((to_frame({"error": words(why)}),)))

    def _try_to_send(self) -> None:
        try:
            self._send()
        except OSError:
            self._leave()

    def _send(self) -> None:
        while self._sending or (chunk := next(self._chunks, b"")):
            self._sending = self._sending or memoryview(chunk)
            try:
                sent = self._socket.send(self._sending)
            except BlockingIOError:
                return
            self._sending = self._sending[sent:]
            if self._answered:
                self.deadline = time.monotonic() + PROGRESS_SECONDS
        if self._answered:
            self._leave()

    def _leave(self) -> None:
        if self._recording is not None and not self._recording.result.done():
            self._recording.cancel()
        self._reactor.remove(self)
        self._on_end(self)


def _answer(artifact: Artifact) -> Iterator[bytes]:
    yield to_frame({"size": len(artifact.body), "partial": words(artifact.info.partial or "")})
    yield from artifact.chunks()


def _joined(*iterators: Iterator[bytes]) -> Iterator[bytes]:
    for each in iterators:
        yield from each
