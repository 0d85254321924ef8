"""Stacks of those who wait for asyncio's locks and of those who release them, taken where that happens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import FrameType
from typing import Any

from profiling_middleware.instruments.chains import ChainReader, running_frames, suspended_frames
from profiling_middleware.model import Stack
from profiling_middleware.stacks import StackTable


class WaitStacks:
    """In the thread and the task that are told of. A `frame` is one of theirs that runs: the stack begins with it."""

    def __init__(self, reader: ChainReader | None = None) -> None:
        """With a `reader` what has been seen before need not be read frame by frame."""
        self._reader = reader
        self._table = StackTable()

    def of_thread(self, frame: FrameType) -> Stack:
        """With all that have called it."""
        table = self._table
        position = self._reader.running(frame, False) if self._reader is not None else None
        known = table.known(position) if position is not None else None
        return known or table.take(frame) or table.of(())

    def of_task(self, frame: FrameType, parents: Sequence[asyncio.Task[Any]]) -> Stack:
        """As far as coroutines call each other, and then that of each task that waits for it."""
        table = self._table
        position = self._position(frame, parents)
        known = table.known(position) if position is not None else None
        return known or table.of(
            [*running_frames(frame), *(each for parent in parents for each in suspended_frames(parent))]
        )

    def leaf(self, frame: FrameType) -> Stack:
        """The one frame, if it is a coroutine's."""
        return self._table.of(running_frames(frame, most=1))

    def make_room(self) -> None:
        """Begins anew when full."""
        if self._table.is_full:
            self.clear()

    def clear(self) -> None:
        """Begins anew: it keeps code alive. A loop that uses the old one at this moment goes on with it."""
        self._table = StackTable()

    def _position(self, frame: FrameType, parents: Sequence[asyncio.Task[Any]]) -> tuple[int, ...] | None:
        if self._reader is None:
            return None
        position = self._reader.running(frame, True)
        for parent in parents:
            part = self._reader.suspended(parent.get_coro())
            if position is None or part is None:
                return None
            position += part
        return position
