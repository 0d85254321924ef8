"""What happens beside the answers while requests are sent: captures that begin, and lines of the log."""

from __future__ import annotations

import gzip
import logging
import threading
import traceback
from types import TracebackType
from typing import Any, Self

from profiling_middleware.profiler import Profiler
from profiling_middleware.recorder import Recorder


class FuzzFailure(AssertionError):  # noqa: N818 - it says what is the case
    """Something that must not be."""


class Watch(logging.Handler):
    """Counts captures and profilers that are made, and keeps what is logged until it is taken."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.work = 0
        """Captures begun, and uses of the profiler."""
        self.captures = 0
        self._level = logging.NOTSET
        self._lines: list[str] = []
        self._broken: list[str] = []
        self._undo: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Self:
        on_demand, shared = Recorder.on_demand, Profiler.shared.__func__  # type: ignore[attr-defined]
        watch = self

        def counted(*given: Any, **named: Any) -> Any:
            watch.work += 1
            watch.captures += 1
            return on_demand(*given, **named)

        def counted_shared(cls: Any, settings: Any) -> Any:
            # Where profiling is on it begins by itself, a second after the service.
            watch.work += threading.current_thread().name != "profiling-start"
            return shared(cls, settings)

        self._undo = [(Recorder, "on_demand", on_demand), (Profiler, "shared", Profiler.__dict__["shared"])]
        Recorder.on_demand = counted  # type: ignore[method-assign]
        Profiler.shared = classmethod(counted_shared)  # type: ignore[method-assign,assignment]
        package = logging.getLogger("profiling_middleware")
        self._level = package.level
        package.setLevel(logging.DEBUG)
        logging.getLogger().addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger().removeHandler(self)
        logging.getLogger("profiling_middleware").setLevel(self._level)
        for owner, name, value in self._undo:
            setattr(owner, name, value)

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            said += "".join(traceback.format_exception(record.exc_info[1]))
            # A server that has refused a body itself takes no answer from whoever was asked: h11 says so by raising.
            if "can't handle event type Response when" not in said:
                self._broken.append(said)
        self._lines.append(said)

    def take_lines(self) -> str:
        """What has been logged since the last time. Raises FuzzFailure if something inside has failed."""
        lines, self._lines = "\n".join(self._lines), []
        if self._broken:
            raise FuzzFailure(f"failed inside:\n{self._broken[0]}")
        return lines


def must_not_show(token: str | None, *shown: object) -> None:
    """Raises FuzzFailure when a token is in what is shown."""
    if token is None:
        return
    for one in shown:
        text = one if isinstance(one, bytes) else str(one).encode("utf-8", "backslashreplace")
        if text.startswith(b"\x1f\x8b"):
            text = gzip.decompress(text)
        if token.encode() in text:
            raise FuzzFailure(f"the token is shown: {text[:2000]!r}")
