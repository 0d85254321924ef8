"""Where in the source the pieces of a program are: which function and which lines a name given to `lap` stands for."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class Piece(NamedTuple):
    """One statement whose CPU time is known."""

    name: str
    function: str
    """The innermost function around it, by its plain name."""
    lines: range
    """Those of the statement, as numbered in the file."""


def pieces_of(source: Path) -> dict[str, Piece]:
    """All pieces of a program by name: of each `….lap("name")` the statement above it.

    Raises ValueError for a name that is used twice, a lap with nothing to measure, or a function of which a part is
    not measured.
    """
    found: dict[str, Piece] = {}
    for piece in _in_block(ast.parse(source.read_text()).body, around=None):
        if piece.name in found:
            raise ValueError(f"{source.name}: two pieces are named {piece.name!r}")
        found[piece.name] = piece
    return found


_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _in_block(block: Sequence[ast.stmt], around: _Function | None) -> Iterator[Piece]:
    before: ast.stmt | None = None
    for statement in block:
        name = _lap(statement)
        if name is not None:
            if before is None or _calls(before) is not None:
                raise ValueError(f"line {statement.lineno}: there is no statement above the lap {name!r}")
            yield Piece(name, _known(around, statement), range(before.lineno, (before.end_lineno or before.lineno) + 1))
        inner = statement if isinstance(statement, _Function) else around
        for _, blocks in ast.iter_fields(statement):
            if isinstance(blocks, list) and blocks and isinstance(blocks[0], ast.stmt):
                yield from _in_block(blocks, inner)
        before = statement


def _known(function: _Function | None, lap: ast.stmt) -> str:
    """The name of a function that is measured from its first to its last statement, as a profiler sees it."""
    if function is None or _calls(function.body[0]) is None or _lap(function.body[-1]) is None:
        raise ValueError(f"line {lap.lineno}: a function with laps begins with start() and ends with a lap")
    return function.name


def _lap(statement: ast.stmt) -> str | None:
    """The name that the statement gives to `lap`, None when it is another statement."""
    call = _calls(statement)
    if call is None or call.func.attr != "lap":  # type: ignore[attr-defined]
        return None
    match call.args:
        case [ast.Constant(value=str(name))]:
            return name
    raise ValueError(f"line {statement.lineno}: a lap's name is written out")


def _calls(statement: ast.stmt) -> ast.Call | None:
    """The call of a clock's method that this statement is."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="lap" | "start")) as call):
            return call
    return None
