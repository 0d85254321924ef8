"""Requests in flight, as the middlewares tell of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar, Token
from threading import get_ident
from time import monotonic_ns
from typing import Any

from profiling_middleware.coroutine_functions import marked_as_coroutine_function
from profiling_middleware.labels import Resolve, Served, labels_of
from profiling_middleware.trace_events import RequestEvent
from profiling_middleware.tracing.buffer import REQUEST, TraceBuffer
from profiling_middleware.tracing.rows import NO_ROW, Rows

WORKS_FOR: ContextVar[int] = ContextVar("profiling_middleware.request", default=0)
"""The number of the request that the running context works for while a trace is taken; 0 for none.

Not the request itself: what is begun in its context may last for ever.
"""

_ENDED: dict[int, tuple[int, int]] = {}
"""By thread: the request that was the last to end in it, and when."""

# A status has three digits.
_NO_STATUS = 1_000


def request_of_step(began_ns: int) -> int:
    """The number of the request for which this context has worked since then; 0 for none.

    Also of one that has ended meanwhile, so that the context works for nobody any more.
    """
    number = WORKS_FOR.get()
    if number:
        return number
    number, ended_ns = _ENDED.get(get_ident(), (0, 0))
    return number if ended_ns >= began_ns else 0


class RequestSpan(Served):
    """One request in flight. `send` stands in for its ASGI `send`; what is noted is for WSGI."""

    __slots__ = (
        "_send",
        "began_ns",
        "first_byte_ns",
        "number",
        "row",
        "status",
    )

    def __init__(self, row: int, number: int, resolve: Resolve, subject: Any, send: Any) -> None:
        super().__init__(resolve, subject)
        self.row, self.number, self._send = row, number, send
        self.status = self.first_byte_ns = 0
        self.began_ns = monotonic_ns()

    @marked_as_coroutine_function
    def send(self, message: MutableMapping[str, Any]) -> Any:
        """What the application sends, seen on its way; returns what the server's `send` does."""
        if not self.first_byte_ns:
            try:
                kind = message["type"]
                if kind == "http.response.start":
                    status = message["status"]
                    # Servers take 201.0, too, and one that cannot be written would cost the whole chunk.
                    self.status = status if isinstance(status, int) and 0 <= status < _NO_STATUS else 0
                elif kind == "http.response.body":
                    self.first_byte_ns = monotonic_ns()
                elif kind == "websocket.accept":
                    self.status, self.first_byte_ns = 101, monotonic_ns()
            except Exception:
                self.first_byte_ns = 0  # no message as it should be, and the server's to refuse
        return self._send(message)

    def note_status(self, status: str) -> None:
        """As WSGI's `start_response` is told: `200 OK`."""
        self.status = int(status[:3]) if status[:3].isdecimal() else 0

    def note_first_byte(self) -> None:
        """The body begins to be sent, unless it had begun before."""
        self.first_byte_ns = self.first_byte_ns or monotonic_ns()

    def event(self, ended_ns: int) -> RequestEvent:
        """What there is to be told; `ended_ns` is 0 for a request that goes on."""
        return RequestEvent(
            self.row, self.number, self.began_ns, self.first_byte_ns, ended_ns, labels_of(self), self.status
        )


class RequestSpans:
    """All requests in flight while a trace is taken."""

    def __init__(self) -> None:
        self._buffer: TraceBuffer | None = None
        self._rows = Rows()
        self._numbers = itertools.count(1)
        self._open: dict[int, RequestSpan] = {}
        self._changed: list[Callable[[bool], object]] = []

    @property
    def traced(self) -> bool:
        """Whether somebody listens."""
        return self._buffer is not None

    def on_change(self, tell: Callable[[bool], object]) -> None:
        """From now on `tell` is called with whether somebody listens, whenever that changes, and now."""
        self._changed.append(tell)
        tell(self.traced)

    def start(self, buffer: TraceBuffer) -> None:
        """From now on requests are told to `buffer`."""
        self._buffer = buffer
        for tell in self._changed:
            tell(True)

    def stop(self) -> None:
        """Those in flight are forgotten."""
        self._buffer = None
        self._open.clear()
        _ENDED.clear()
        self._rows = Rows()
        for tell in self._changed:
            tell(False)

    def begin(self, resolve: Resolve, subject: Any, send: Any = None) -> RequestSpan:
        """A request has come. `resolve` tells the labels of `subject`, such as an ASGI scope, once it is routed."""
        number = next(self._numbers)
        span = RequestSpan(self._rows.take(), number, resolve, subject, send)
        self._open[number] = span
        return span

    def enter(self, span: RequestSpan) -> Token[int]:
        """From now on the running context works for it, until the token is reset."""
        return WORKS_FOR.set(span.number)

    def end(self, span: RequestSpan) -> None:
        """It is over, and what its labels are is known. One that began before somebody else listened is not told."""
        ended_ns = monotonic_ns()
        span.end()
        was_open, buffer = span.number in self._open, self._buffer
        if buffer is not None and was_open:
            _ENDED[get_ident()] = span.number, ended_ns
            if span.row == NO_ROW:
                buffer.dropped += 1
            else:
                buffer.add(REQUEST, *span.event(ended_ns))
        # Not before it is told: whoever asks meanwhile finds it in one of the two.
        if self._open.pop(span.number, None) is not None and buffer is not None:
            self._rows.give_back(span.row)

    def in_flight(self) -> list[RequestSpan]:
        """Those that go on now."""
        return list(self._open.values())
