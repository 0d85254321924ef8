"""What a source file can contribute to a stack: its functions with their lines, and which names stand where."""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

_WORD = re.compile(r"[A-Za-z_<][A-Za-z0-9_>]*")
_CALLED_BY = re.compile(r"# called by (?:the )?(\w+)")
_HEAD = re.compile(r"\s*(?:@|def |async def |class )")
_LIBRARY = Path(sysconfig.get_paths()["stdlib"])


class Function:
    """A function, class body or module, as its code object is."""

    def __init__(self, code: CodeType, called_by: str) -> None:
        self.name = code.co_qualname
        self.first_line = code.co_firstlineno
        self.lines = {line for _, _, line in code.co_lines() if line is not None} | {self.first_line}
        self.called_by = called_by
        """anything, library, nobody (it may be at a stack's bottom), or a function's name; empty: who names it."""


class Source:
    """One file, compiled anew: what this says does not come from what is checked."""

    def __init__(self, path: Path, filename: str) -> None:
        text = path.read_bytes()
        self.functions: dict[int, list[Function]] = {}
        self._text = text.decode().split("\n")
        self._ranges: dict[int, range] = {}
        for begin, end in _statements(ast.parse(text)):
            for line in range(begin, end + 1):
                # The innermost statement comes last.
                self._ranges[line] = range(begin, end + 1)
        for code in _codes(compile(text, filename, "exec", dont_inherit=True)):
            function = Function(code, self._called_by(code.co_firstlineno))
            self.functions.setdefault(code.co_firstlineno, []).append(function)

    def statement(self, line: int) -> range:
        """The lines of the statement, or of the head of the block, that a line belongs to."""
        return self._ranges.get(line, range(line, line + 1))

    @functools.cache  # noqa: B019 - there are as many of these as files
    def words(self, line: int) -> frozenset[str]:
        """All names in that statement, those in its comments as well."""
        return frozenset(
            word for number in self.statement(line) for word in _WORD.findall(self._text[number - 1 : number][0])
        )

    def _called_by(self, line: int) -> str:
        if not _HEAD.match(self._text[max(0, line - 1)]):
            return ""
        # After decorators, and before the body: a head has few lines.
        for text in self._text[max(0, line - 1) : line + 12]:
            found = _CALLED_BY.search(text)
            if found:
                return found[1]
            if text.rstrip().endswith(":") or ":  #" in text:
                return ""
        return ""


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _statements(tree: ast.AST) -> Iterator[tuple[int, int]]:
    """Where each statement begins and ends, the inner after the outer; of those with a body only the head."""
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            yield node.lineno, max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno


@functools.cache
def source(filename: str) -> Source | None:
    """What a code object's `co_filename` stands for, None when it is no file that can be read."""
    path = Path(filename)
    if filename.startswith("<frozen "):
        name = filename[len("<frozen ") : -1].replace(".", "/")
        path = next(
            (found for found in (_LIBRARY / f"{name}.py", _LIBRARY / name / "__init__.py") if found.is_file()), path
        )
    if path.suffix not in importlib.machinery.SOURCE_SUFFIXES or not path.is_file():
        return None
    return Source(path, filename)
