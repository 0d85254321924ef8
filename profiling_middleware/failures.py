"""What fails within the profiler and goes no further: counted, and logged once in a while."""

from __future__ import annotations

import contextlib
import logging
import sys
import time

# What fails at each request, or each second, would fill the log of a service that is otherwise well.
_SECONDS_BETWEEN_LINES = 60.0
_MOST_PLACES = 100

_Place = tuple[type, object, int]


class Failures:
    """For code that must not raise, as it stands in the way of a request: it catches, tells it here, and goes on."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("profiling_middleware")
        self._said: dict[_Place, tuple[float, int]] = {}
        """By what fails where: when it was logged last, and how many had failed by then."""
        self.count = 0
        """Since this was made."""

    def note_own(self, error: Exception) -> None:
        """As `note`, but what a signal handler of the application has raised here, such as a time-out, is raised on."""
        if raised_by_a_handler(error):
            raise error
        self.note()

    def note(self) -> None:
        """To be called while the exception is being handled. Logs each kind once a minute; raises nothing."""
        self.count += 1
        # Whatever it is, the service's own handlers of the log included.
        with contextlib.suppress(Exception):
            now, place = time.monotonic(), _place(sys.exception())
            last, count = self._said.get(place, (None, self.count - 1))
            if last is not None and now - last < _SECONDS_BETWEEN_LINES:
                return
            if len(self._said) >= _MOST_PLACES:
                self._said.clear()
            self._said[place] = now, self.count
            others = self.count - count - 1
            more = f" (and {others} times since this was said last)" if others else ""
            self._logger.exception("profiling: an internal step failed; the service is not affected%s", more)


def _place(error: BaseException | None) -> _Place:
    """The innermost line; a failure that is the same has the same one."""
    trace = error.__traceback__ if error is not None else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return type(error), trace.tb_frame.f_code if trace is not None else None, trace.tb_lineno if trace else 0


def raised_by_a_handler(error: BaseException) -> bool:
    """Whether it came from a signal handler that ran in between: whoever catches failures of its own has to pass it on.

    A handler is known by what it is given: the frame that it has interrupted.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        interrupted, trace = trace.tb_frame, trace.tb_next
        for value in trace.tb_frame.f_locals.values():
            if value is interrupted or (type(value) is tuple and any(one is interrupted for one in value)):
                return True
    return False
