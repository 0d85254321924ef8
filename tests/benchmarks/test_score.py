"""A profile beside its truth: a right one has no distance, and each way of being wrong is seen for what it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from benchmarks.truth.clock import Spent
from benchmarks.truth.pieces import Piece
from benchmarks.truth.profilers.base import Seen
from benchmarks.truth.score import ELSEWHERE, Score, score
from benchmarks.truth.stage import Truth
from sample_app.pprof_reader import Frame

KNOWN = {
    "heavy: loop": Piece("heavy: loop", "heavy", range(10, 13)),
    "heavy: texts": Piece("heavy: texts", "heavy", range(14, 15)),
    "light": Piece("light", "light", range(20, 21)),
}
TRUTH = Truth({"heavy: loop": Spent(500, 5), "heavy: texts": Spent(200, 5), "light": Spent(250, 5)}, 1_000)
CALLERS = (Frame("Stage._act", "/x/truth/stage.py", 99), Frame("Thread.run", "/lib/threading.py", 1))


def seen(function: str, line: int, cpu_ns: float, *below: Frame, file: str = "/x/programs/loops.py") -> Seen:
    return Seen((*below, Frame(function, file, line), *CALLERS), cpu_ns, cpu_ns / 10)


RIGHT = (
    seen("heavy", 11, 500),
    seen("heavy", 14, 200),
    seen("light", 20, 250),
    Seen(CALLERS, 50, 5),
)


def scored(profile: Iterable[Seen], *, by_line: bool = False, known: Mapping[str, Piece] = KNOWN) -> Score:
    return score(TRUTH, profile, known, "programs/loops.py", by_line=by_line)


@pytest.mark.parametrize("by_line", [False, True])
def test_a_right_profile_has_no_distance(by_line: bool) -> None:
    result = scored(RIGHT, by_line=by_line)

    assert result.distance == pytest.approx(0.0, abs=1e-12)
    assert result.measured_to_true == pytest.approx(1.0)
    assert result.samples == 100
    assert 0.02 < result.floor < 0.08


def test_a_biased_profile_is_as_far_away_as_its_bias() -> None:
    biased = (seen("heavy", 11, 400), seen("heavy", 14, 200), seen("light", 20, 350), Seen(CALLERS, 50, 5))

    assert scored(biased).distance == pytest.approx(0.1)
    assert scored(biased).measured == pytest.approx({"heavy": 0.6, "light": 0.35, ELSEWHERE: 0.05})


def test_cpu_time_that_nobody_spent_is_seen_in_place_and_in_total() -> None:
    result = scored((*RIGHT, seen("sleeper", 30, 1_000)))

    assert result.distance == pytest.approx(0.475)
    assert result.measured_to_true == pytest.approx(2.0)


def test_missing_cpu_time_is_seen_in_the_total_only() -> None:
    halved = [Seen(stack, cpu_ns / 2, samples) for stack, cpu_ns, samples in RIGHT]

    assert scored(halved).distance == pytest.approx(0.0, abs=1e-12)
    assert scored(halved).measured_to_true == pytest.approx(0.5)


def test_a_profile_one_line_late_is_right_by_function_and_wrong_by_line() -> None:
    late = [Seen(tuple(map(later, stack)), cpu_ns, samples) for stack, cpu_ns, samples in RIGHT]

    assert scored(late).distance == pytest.approx(0.0, abs=1e-12)
    assert scored(late, by_line=True).distance == pytest.approx(0.95)


def later(frame: Frame) -> Frame:
    return Frame(frame.function, frame.file, frame.line + 10)


def test_the_deepest_known_function_has_the_time() -> None:
    inside = Frame("heavy", "/x/programs/loops.py", 11)
    comprehension = Frame("heavy.<locals>.<listcomp>", "/x/programs/loops.py", 14)

    assert scored([seen("light", 20, 100, inside)]).measured == pytest.approx({"heavy": 1.0})
    by_line = scored([seen("heavy", 14, 100, comprehension)], by_line=True)
    assert by_line.measured == pytest.approx({"heavy: texts": 1.0})


def test_names_may_be_qualified_but_the_file_must_be_the_programs() -> None:
    assert scored([seen("benchmarks.truth.programs.loops.heavy", 11, 1)]).measured == {"heavy": 1.0}
    assert scored([seen("heavy", 11, 1, file="loops.py")]).measured == {"heavy": 1.0}
    assert scored([seen("heavy", 11, 1, file="/lib/other.py")]).measured == {ELSEWHERE: 1.0}


def test_an_empty_profile_is_as_far_away_as_can_be() -> None:
    assert scored([]).distance == 1.0
    assert scored([]).measured_to_true == 0.0
