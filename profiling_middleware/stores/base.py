"""What a store can do, and how it says that it could not."""

from __future__ import annotations

from typing import Protocol

from profiling_middleware.model import Body, CaptureInfo


class StoreError(Exception):
    """A capture could not be stored. The message is for the operator: what failed, and what would mend it."""

    def __init__(self, message: str, *, brief: str | None = None, of_capture: bool = False) -> None:
        """`brief` is what the log says from the second time on, of what goes on until an operator mends it.

        `of_capture`: it is this capture that is refused, such as for its size, and others may be taken.
        """
        super().__init__(message)
        self.brief = brief
        self.of_capture = of_capture


class KeyTaken(Exception):  # noqa: N818 - not an error: another process was first, or an answer was lost
    """Something lies under this key already; nothing was replaced."""


class Store(Protocol):
    """A place for captures. One thread at a time uses it, and never a forked child its parent's."""

    @property
    def place(self) -> str:
        """Where this is, for log lines, such as `s3://bucket`."""

    def warm_up(self) -> None:
        """Does early what would make the first put slow. Raises StoreError."""

    def put(self, key: str, body: Body, info: CaptureInfo) -> None:
        """Stores `body` under `key` unless something is there. Raises KeyTaken or StoreError."""
