"""One request to the application: the labels of its samples, and its part in a trace, until its body is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import Token
from typing import TYPE_CHECKING, Any

from profiling_middleware.failures import Failures
from profiling_middleware.labels import Served, end_work

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from profiling_middleware.tracing.requests import RequestSpan, RequestSpans


class Work:
    """What one request's samples are labelled with, and its part in a trace."""

    __slots__ = ("_ended", "_served", "_span", "_spans", "failures", "tokens")

    def __init__(self, served: Served, spans: RequestSpans | None, failures: Failures) -> None:
        self.tokens: list[Token[Any]] = []
        self._served, self._spans, self.failures = served, spans, failures
        self._span: RequestSpan | None = None
        self._ended = False

    def trace(self, spans: RequestSpans) -> None:
        """From now on it is told."""
        span = self._span = spans.begin(Served.labels, self._served)
        self.tokens.append(spans.enter(span))

    def noted(self, start_response: StartResponse) -> StartResponse:
        """What the application is to call instead of `start_response`."""

        def noting(*arguments: Any, **named: Any) -> Callable[[bytes], object]:
            try:
                self._served.note()
                if self._span is not None:
                    self._span.note_status(arguments[0] if arguments else named["status"])
            except Exception as error:
                self.failures.note_own(error)
            return start_response(*arguments, **named)

        return noting

    def first_byte(self) -> None:
        """The body begins to be sent."""
        if self._span is not None:
            self._span.note_first_byte()

    def end(self, *, failed: bool = False) -> None:
        """It is over; doing it twice changes nothing."""
        if self._ended:
            return
        self._ended = True
        span, spans = self._span, self._spans
        self._served.end()
        if span is not None and spans is not None:
            if failed:
                span.status = span.status or 500  # what servers answer then
            else:
                span.note_first_byte()
            spans.end(span)
        for token in self.tokens:
            end_work(token)


class ObservedBody:
    """A body that is still being made while the server sends it; closing it ends the request's work.

    So does its going: there are middlewares that take what is in a body, and never close it.
    """

    def __init__(self, body: Iterable[bytes], work: Work) -> None:
        self._body, self._work = body, work
        self._begun = False

    def __iter__(self) -> Iterator[bytes]:
        self._begins()
        return _Parts(self, iter(self._body))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def _begins(self) -> None:
        self._begun = True
        try:
            self._work.first_byte()
        except Exception as error:
            self._work.failures.note_own(error)

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._end()

    def _end(self) -> None:
        try:
            self._work.end()
        except Exception as error:
            self._work.failures.note_own(error)

    def __del__(self) -> None:
        self._end()


class ObservedIterator(ObservedBody):
    """Of a body that is an iterator: a middleware around this one may take the first part itself."""

    def __iter__(self) -> Iterator[bytes]:
        self._begins()
        return self

    def __next__(self) -> bytes:
        if not self._begun:
            self._begins()
        return next(self._body)  # type: ignore[call-overload, no-any-return]


class _Parts:
    """The parts of a body, which lives as long as they are taken."""

    def __init__(self, body: ObservedBody, parts: Iterator[bytes]) -> None:
        self._of, self._next = body, parts.__next__

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._next()


def observed(body: Iterable[bytes], work: Work) -> Iterable[bytes]:
    """The same body, whose end is the end of the work."""
    return (ObservedIterator if hasattr(body, "__next__") else ObservedBody)(body, work)


def is_whole(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Whether nothing of it is still to be made, or the server has its own way with it: its length, or its file."""
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type):
        return hasattr(body, "__len__") or isinstance(body, wrapper)
    return hasattr(body, "__len__") or (wrapper is not None and hasattr(body, "fileno"))
