"""One run's profile beside its truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from benchmarks.truth.distance import chance_distance, shares, total_variation
from benchmarks.truth.pieces import Piece
from benchmarks.truth.profilers.base import Seen
from benchmarks.truth.stage import Truth
from sample_app.pprof_reader import Frame

ELSEWHERE = "elsewhere"
"""What stands outside the known functions, or outside the known lines."""


@dataclass(frozen=True, slots=True)
class Score:
    """What one run comes to. Shares are of all CPU time of the program, as the one or the other side has it."""

    distance: float
    """Total variation between the measured and the true shares."""
    floor: float
    """What chance alone would make of it with that many samples."""
    samples: int
    measured_to_true: float
    """All CPU time measured, the profiler's own apart, by all that was spent."""
    measured: Mapping[str, float]
    true: Mapping[str, float]


def score(truth: Truth, seen: Iterable[Seen], known: Mapping[str, Piece], source: str, *, by_line: bool) -> Score:
    """`seen` is what the profiler saw, its own CPU time left out; `known` are the pieces of the program's `source`.

    A stack belongs to the deepest function on it that has pieces; with `by_line` to the piece on whose lines that
    function was.
    """
    places = _Places(known, source, by_line=by_line)
    true: defaultdict[str, float] = defaultdict(float)
    for name, spent in truth.pieces.items():
        true[places.of_piece(name)] += spent.cpu_ns
    true[ELSEWHERE] += max(0.0, truth.total_ns - sum(spent.cpu_ns for spent in truth.pieces.values()))
    measured: defaultdict[str, float] = defaultdict(float)
    samples = 0.0
    for stack, cpu_ns, count in seen:
        measured[places.of_stack(stack)] += cpu_ns
        samples += count
    return Score(
        distance=total_variation(measured, true),
        floor=chance_distance(true, round(samples)),
        samples=round(samples),
        measured_to_true=sum(measured.values()) / max(truth.total_ns, 1),
        measured=shares(measured),
        true=shares(true),
    )


class _Places:
    """Finds out where CPU time belongs: the name of a function, or that of a piece."""

    def __init__(self, known: Mapping[str, Piece], source: str, *, by_line: bool) -> None:
        self._known = known
        self._file = PurePath(source).name
        self._by_line = by_line
        self._functions: defaultdict[str, list[Piece]] = defaultdict(list)
        for piece in known.values():
            self._functions[piece.function].append(piece)

    def of_piece(self, name: str) -> str:
        return name if self._by_line else self._known[name].function

    def of_stack(self, stack: Sequence[Frame]) -> str:
        for frame in stack:
            # Some profilers qualify names, some give a file as it was imported.
            function = frame.function.rpartition(".")[2]
            if function in self._functions and PurePath(frame.file).name == self._file:
                return self._of_line(function, frame.line) if self._by_line else function
        return ELSEWHERE

    def _of_line(self, function: str, line: int) -> str:
        return next((piece.name for piece in self._functions[function] if line in piece.lines), ELSEWHERE)
