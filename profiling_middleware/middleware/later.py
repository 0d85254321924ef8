"""Answers that take longer than an event loop may stand still: made on a thread of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

from profiling_middleware.middleware.messages import AdminResponse, error
from profiling_middleware.threads import OwnThread


class Later:
    """An answer that is being made; see `messages.Awaited`. What fails is answered and logged."""

    def __init__(self, make: Callable[[], AdminResponse], logger: logging.Logger) -> None:
        self.result: Future[AdminResponse] = Future()
        self._make, self._logger = make, logger
        # Nobody who waits for the future can cancel it by the way.
        self.result.set_running_or_notify_cancel()
        try:
            OwnThread(self._run, "profiling-service").start()
        except RuntimeError:
            self._run()  # the interpreter is exiting and starts no thread any more

    def cancel(self) -> None:
        """The client has left: what has begun goes on all the same."""

    def response(self) -> AdminResponse:
        """The answer once `result` is there."""
        return self.result.result()

    def break_off(self) -> None:
        """The client has not read it in time."""

    def close(self) -> None:
        """The client has the answer, or is gone: it holds nothing."""

    def _run(self) -> None:
        try:
            response = self._make()
        except RuntimeError as conflict:
            response = error(409, f"profiling: {conflict}")
        except Exception as failure:
            self._logger.exception("profiling: a request could not be answered")
            response = error(500, f"profiling: failed ({type(failure).__name__}); the log says why")
        self.result.set_result(response)
