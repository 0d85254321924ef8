"""From the frames of a running thread to Stacks: equal stacks become the same object."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType

from profiling_middleware.model import Frame, Reason, Stack
from profiling_middleware.uncollected import make_untracker

MAX_DEPTH = 512
_MAX_KNOWN = 8192

TRUNCATED = Frame("<truncated>", "", 0, 0)
NOT_SEEN_RUNNING = Frame("<not seen running>", "", 0, 0)


_ALLOCATING_COLLECTS = sys.version_info < (3, 12)


@contextmanager
def reading_others() -> Iterator[None]:
    """Within this block frames of other threads, and of tasks, may be read. The garbage collector does not run in it.

    To read a frame is to make an object of it and of its caller. In 3.11 that may start the collector, which runs
    finalizers and callbacks: then the other thread goes on, and the object is made of a frame that is no more. The
    interpreter's own sys._current_frames() does the same for the same reason (GH-106883); later versions collect
    between two byte codes only.
    """
    thresholds = gc.get_threshold()
    if not _ALLOCATING_COLLECTS or not gc.isenabled() or not thresholds[0]:
        yield
        return
    # Not disable(): the application may do that meanwhile, on another thread, and then it stays so.
    gc.set_threshold(0, *thresholds[1:])
    try:
        yield
    finally:
        if not gc.get_threshold()[0]:
            gc.set_threshold(*thresholds)


class _Code:
    """A code object and what is said of it. Holding it keeps its id from being given to another one."""

    __slots__ = ("code", "file", "function", "lines")

    def __init__(self, frame: FrameType) -> None:
        self.code: CodeType = frame.f_code
        module = frame.f_globals.get("__name__")
        name = self.code.co_qualname
        self.function = f"{module}.{name}" if isinstance(module, str) and module else name
        self.file = self.code.co_filename
        self.lines = {-1: self.code.co_firstlineno}

    def frame(self, instruction: int) -> Frame:
        line = self.lines.get(instruction)
        if line is None:
            line = self.lines[instruction] = self._line(instruction)
        return Frame(self.function, self.file, line, self.code.co_firstlineno)

    def _line(self, instruction: int) -> int:
        for start, end, line in self.code.co_lines():
            if start <= instruction < end and line is not None:
                return line
        return self.code.co_firstlineno


class StackTable:
    """The stacks seen so far, bounded: when full it begins anew and counts that."""

    def __init__(self, limit: int = _MAX_KNOWN, hidden: str | None = None) -> None:
        """Functions whose names begin with `hidden` are left out at the leaf."""
        self._limit = limit
        self.hidden = hidden
        self._codes: dict[int, _Code] = {}
        self._by_position: dict[tuple[int, ...], Stack] = {}
        self._by_frames: dict[tuple[Frame, ...], Stack] = {}
        self._waits: dict[tuple[int, int], Reason] = {}
        self._untrack = make_untracker()
        self.clears = 0

    def of(self, frames: Sequence[FrameType]) -> Stack:
        """The stack of these frames, leaf first; they do not run."""
        position: list[int] = []
        for frame in frames:
            code = id(frame.f_code)
            if code not in self._codes:
                self._codes[code] = _Code(frame)
            position += (code, frame.f_lasti)
        key = tuple(position)
        stack = self._by_position.get(key)
        if stack is None:
            stack = self._by_position[key] = self._resolve(position, truncated=False)
        return stack

    def known(self, position: tuple[int, ...]) -> Stack | None:
        """The stack of these ids of code and instructions, leaf first; None if it has not been seen as frames yet."""
        return self._by_position.get(position)

    def take(self, leaf: FrameType) -> Stack | None:
        """The stack of a thread, None when it went on while it was read (the GIL may change hands meanwhile).

        Of another thread than the calling one only within `reading_others`.
        """
        position: list[int] = []
        codes = self._codes
        frame: FrameType | None = leaf
        while frame is not None and len(position) < 2 * MAX_DEPTH:
            code = id(frame.f_code)
            if code not in codes:
                codes[code] = _Code(frame)
            position += (code, frame.f_lasti)
            frame = frame.f_back
        if leaf.f_lasti != position[1]:
            return None
        key = tuple(position)
        stack = self._by_position.get(key)
        if stack is None:
            stack = self._by_position[key] = self._resolve(position, truncated=frame is not None)
        return stack

    def seen_waiting(self, leaf: FrameType, reason: Reason) -> None:
        """Notes that a thread waited in a system call at this very instruction, and why."""
        self._waits[id(leaf.f_code), leaf.f_lasti] = reason

    def waits_at(self, leaf: FrameType) -> Reason | None:
        """Why a thread was seen waiting at this very instruction the last time, None when none ever was."""
        return self._waits.get((id(leaf.f_code), leaf.f_lasti))

    def common_part(self, one: Stack, other: Stack) -> Stack:
        """The callers that two stacks share, with the frame `<not seen running>` as their leaf.

        Where the function is the same and the line is not, the function stays and the line is unknown.
        """
        shared: list[Frame] = []
        for ours, theirs in zip(reversed(one.frames), reversed(other.frames), strict=False):
            if ours[:2] != theirs[:2]:
                break
            shared.append(ours if ours.line == theirs.line else ours._replace(line=0))
            if ours.line != theirs.line:
                break
        return self.intern((NOT_SEEN_RUNNING, *reversed(shared)))

    def intern(self, frames: tuple[Frame, ...]) -> Stack:
        """The one Stack of these frames."""
        stack = self._by_frames.get(frames)
        if stack is None:
            untrack = self._untrack
            stack = self._by_frames[untrack(frames)] = untrack(Stack(frames))
        return stack

    def make_room(self) -> None:
        """Begins anew when full. Between looks only: `take` relies on the codes it has put in."""
        if self.is_full:
            self.clear()
            self.clears += 1

    @property
    def is_full(self) -> bool:
        """Whether it should begin anew."""
        return max(len(self._by_position), len(self._by_frames), len(self._codes)) > self._limit

    def clear(self) -> None:
        self._codes.clear()
        self._waits.clear()
        self._by_position.clear()
        self._by_frames.clear()

    def _resolve(self, position: list[int], *, truncated: bool) -> Stack:
        frames = [
            self._codes[code].frame(instruction)
            for code, instruction in zip(position[::2], position[1::2], strict=True)
        ]
        while self.hidden is not None and frames and frames[0].function.startswith(self.hidden):
            del frames[0]
        if truncated:
            frames.append(TRUNCATED)
        return self.intern(tuple(frames))
