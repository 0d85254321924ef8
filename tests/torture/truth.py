"""What a profile of this program can contain: each frame by itself, each with its caller, and whole stacks."""

from __future__ import annotations

import functools
import gc
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType

from profiling_middleware.model import Frame
from torture.sources import Function, Source, source

SPECIAL = frozenset(
    f"<{text}>"
    for text in (
        "truncated",
        "thread without Python",
        "another interpreter",
        "not seen yet",
        "not seen running",
        "not seen waiting",
        "running",
        "not sampled",
        "other stacks",
        "profiling_middleware sampling",
        "stack changed while it was read",
        "thread ended between two looks",
    )
)
_HERE = str(Path(__file__).parent)
_MADE = re.compile(r"<made (\d+)>")
_MADE_NAME = re.compile(r"(made|stray)_(\d+)_(\d+)_(\d+)(?:\.<locals>\.inner_(\d+))?")
_NUMBER = re.compile(r"_?\d+$")
_BOTTOMS = ("_bootstrap", "_run_module_as_main", "_remove", "__del__")
"""The last two when a thread's own data go, at its end."""
_DEEPEST = 512
INNER_AT, INNER_LINES = 2, 3
"""Where in a made function its inner one begins, and how long it is."""


class Truth:
    """`directory` is where generated modules lie."""

    def __init__(self, directory: Path) -> None:
        self._places = (_HERE, str(directory))

    # -- one frame ---------------------------------------------------------------------------------------------------

    def wrong_frame(self, frame: Frame) -> str | None:
        """Why there can be no such frame; None when there can."""
        if not frame.file:
            return None if frame.function in SPECIAL and frame[2:] == (0, 0) else "no such special frame"
        if _MADE.fullmatch(frame.file):
            return _wrong_made(frame)
        if frame.file.startswith("<") and not frame.file.startswith("<frozen "):
            return _wrong_nameless(frame)
        return None if self._function(frame) is not None else _why_not(frame)

    def is_ours(self, frame: Frame) -> bool:
        """Whether it is a function of the workload: of those it is known who calls them."""
        return frame.file.startswith(self._places) or bool(_MADE.fullmatch(frame.file))

    def part_of(self, frame: Frame) -> str:
        """Which part of the workload a function of ours belongs to: the stem of its file without its number."""
        return "made" if frame.file.startswith("<") else _NUMBER.sub("", Path(frame.file).stem)

    def _function(self, frame: Frame) -> Function | None:
        return _find(frame.function, frame.file, frame.line, frame.start_line)

    # -- caller and callee -------------------------------------------------------------------------------------------

    def wrong_pair(self, callee: Frame, caller: Frame) -> str | None:
        """Why one cannot have been called by the other at that line; None when it can."""
        if not self.is_ours(callee) or caller.function in SPECIAL:
            return None
        if made := _MADE_NAME.fullmatch(callee.function):
            return _wrong_caller_of_made(callee, caller, made)
        if callee.function == "<module>" and _MADE.fullmatch(callee.file):
            return None if _last(caller.function) == "call_made" else "made code is called elsewhere"
        function = self._function(callee)
        assert function is not None
        if function.called_by == "anything":
            return None
        last, caller_last = _last(callee.function), _last(caller.function)
        if not self.is_ours(caller):
            fine = function.called_by == "library" or last in ("<module>", "<lambda>")
            return None if fine else "called by the library"
        if function.called_by and function.called_by == caller_last:
            return None
        if _MADE.fullmatch(caller.file):
            return "called by made code"
        calling = source(caller.file)
        assert calling is not None
        words = calling.words(caller.line)
        if last in words or _NUMBER.sub("", last) in words:
            return None
        if last == "__init__" and callee.function.split(".")[-2] in words:
            return None
        if last.startswith("<") and callee.file == caller.file:
            last = last.strip("<>")
            if callee.start_line in calling.statement(caller.line) or last in words:
                return None
        return "nothing in that line calls it"

    # -- whole stacks ------------------------------------------------------------------------------------------------

    def wrong_stack(self, frames: Sequence[Frame]) -> str | None:
        """Why the frames, each right, cannot be one stack; None when they can."""
        names = [frame.function for frame in frames]
        if "<truncated>" in names and (names.index("<truncated>") != len(names) - 1 or len(names) != _DEEPEST + 1):
            return "truncated where it is not deep"
        families = {
            found[1]
            for frame in frames
            if (found := re.search(r"/family_(\d+)\.py$", frame.file)) and self.is_ours(frame)
        }
        if len(families) > 1:
            return "members of two families"
        bottom = frames[-1]
        if bottom.file and not self._may_be_bottom(bottom):
            return "begins with a function that is called by others"
        return None

    def work_of(self, frames: Sequence[Frame]) -> str | None:
        """The function that the thread was started with, if it is one of ours: its name is in the thread's."""
        inner = [frame for frame in reversed(frames) if self.is_ours(frame) and not self._comes_anytime(frame)]
        if frames[-1].function in SPECIAL or not inner:
            return None
        if _last(inner[0].function) == "run" and _last(frames[-1].function) == "_bootstrap":
            inner = inner[1:]
        return _last(inner[0].function) if inner else None

    def _comes_anytime(self, frame: Frame) -> bool:
        function = self._function(frame)
        return frame.function.startswith("stray_") or (function is not None and function.called_by == "anything")

    def is_bottom(self, frame: Frame) -> bool:
        """Whether threads begin with it, and no task does."""
        return not frame.file or _last(frame.function) in _BOTTOMS

    def _may_be_bottom(self, frame: Frame) -> bool:
        if not self.is_ours(frame):
            return _last(frame.function) in _BOTTOMS
        function = self._function(frame)
        return function is not None and (function.called_by in ("nobody", "anything"))


def _last(name: str) -> str:
    return name.rpartition(".")[2]


@functools.lru_cache(maxsize=100_000)
def _find(name: str, file: str, line: int, first_line: int) -> Function | None:
    found: Source | None = source(file)
    for function in found.functions.get(first_line, ()) if found is not None else ():
        if line in function.lines and _is_name(name, function.name, file):
            return function
    return None


def _is_name(name: str, qualified: str, file: str) -> bool:
    if name == qualified:
        return True
    module = name.removesuffix(f".{qualified}")
    if module == name:
        return False
    path = Path(file.removeprefix("<frozen ").removesuffix(">"))
    stem = path.parent.name if path.name == "__init__.py" else path.stem
    if file.startswith("<"):
        return module == str(path)
    return module.rpartition(".")[2] == stem or getattr(sys.modules.get(module), "__file__", None) == file


def _why_not(frame: Frame) -> str:
    found = source(frame.file)
    if found is None:
        return "no such file"
    functions = found.functions.get(frame.start_line)
    if functions is None:
        return "no function begins there"
    if not any(_is_name(frame.function, function.name, frame.file) for function in functions):
        return f"another function begins there: {functions[0].name}"
    return "not a line of that function"


def _wrong_made(frame: Frame) -> str | None:
    """Made code says in its names what its file and its lines are: made_{number}_{first line}_{lines}."""
    found = _MADE_NAME.fullmatch(frame.function)
    if frame.function == "<module>":
        return None if (frame.start_line, frame.line < 100) == (1, True) else "not a line of a made module"
    if found is None:
        return "no such made function"
    number, first, lines = (int(text) for text in found.groups()[1:4])
    if frame.file != f"<made {number}>":
        return "a made function in another's file"
    if found[5] is not None:
        if int(found[5]) != number:
            return "the inner function of another"
        first, lines = first + INNER_AT, INNER_LINES
    if frame.start_line != first:
        return "a made function begins elsewhere"
    return None if first <= frame.line < first + lines else "a line of another made function"


def _wrong_caller_of_made(callee: Frame, caller: Frame, found: re.Match[str]) -> str | None:
    if found[5] is not None:
        # Its outer function calls it, in its last line.
        right = callee.function.startswith(f"{caller.function}.<locals>.") and callee.file == caller.file
        return None if right and caller.line == int(found[3]) + int(found[4]) - 1 else "called elsewhere"
    if found[1] == "stray":
        return None
    return None if _last(caller.function) == "call_made" else "made code is called elsewhere"


def _wrong_nameless(frame: Frame) -> str | None:
    """Code that dataclasses and namedtuples are made of: whoever has it now is asked."""
    known = _nameless()
    if (frame.function, frame.file, frame.start_line) not in known:
        _nameless.cache_clear()
        known = _nameless()
    return None if (frame.function, frame.file, frame.start_line) in known else "no such code is alive"


@functools.cache
def _nameless() -> frozenset[tuple[str, str, int]]:
    codes = {thing.__code__ for thing in gc.get_objects() if isinstance(thing, FunctionType)}
    return frozenset(
        (code.co_qualname, code.co_filename, code.co_firstlineno) for code in codes if code.co_filename.startswith("<")
    )
