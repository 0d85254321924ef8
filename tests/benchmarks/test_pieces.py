"""Names and places of what a program measures, and programs that measure all of themselves."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from benchmarks.truth.pieces import Piece, pieces_of
from benchmarks.truth.programs import PROGRAMS
from benchmarks.truth.stage import Stage, Truth


def written(directory: Path, source: str) -> Path:
    path = directory / "program.py"
    path.write_text(textwrap.dedent(source))
    return path


def test_a_piece_is_the_statement_above_the_lap(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """\
        def heavy(clock):
            clock.start()
            found = 0
            for number in range(9):
                found += number
            clock.lap("loop")
            texts = [str(found)]
            clock.lap("texts")

        async def light(clock):
            clock.start()
            print("light")
            clock.lap("light")
        """,
    )

    assert pieces_of(path) == {
        "loop": Piece("loop", "heavy", range(4, 6)),
        "texts": Piece("texts", "heavy", range(7, 8)),
        "light": Piece("light", "light", range(12, 13)),
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("clock.start(); work(); clock.lap('one'); work(); clock.lap('one')", "two pieces are named 'one'"),
        ("clock.start(); clock.lap('one')", "no statement above"),
        ("work(); clock.lap('one')", "begins with start"),
        ("clock.start(); work(); clock.lap('one'); work()", "ends with a lap"),
        ("clock.start(); work(); clock.lap(name)", "written out"),
    ],
)
def test_a_program_that_could_mislead_is_refused(tmp_path: Path, body: str, message: str) -> None:
    statements = "\n".join(f"    {statement}" for statement in body.split("; "))

    with pytest.raises(ValueError, match=message):
        pieces_of(written(tmp_path, f"def heavy(clock):\n{statements}\n"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_has_pieces(name: str) -> None:
    assert pieces_of(PROGRAMS[name].source)


@pytest.mark.parametrize("name", ["loops", "work-0.3-3"])
def test_a_program_says_what_all_its_pieces_took(name: str) -> None:
    with Stage(PROGRAMS[name].prepare(), 0.05) as stage:
        truth = stage.run()

    assert set(truth.pieces) == set(pieces_of(PROGRAMS[name].source))
    assert 0.5 * truth.total_ns < sum(spent.cpu_ns for spent in truth.pieces.values()) <= truth.total_ns
    assert Truth.from_json(truth.to_json()) == truth


def works(clock: object) -> None:
    sum(range(1_000))


def fails(clock: object) -> None:
    raise ZeroDivisionError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_is_noticed() -> None:
    with Stage([works, fails], 0.01) as stage, pytest.raises(RuntimeError, match="1 actors"):
        stage.run()


def test_threads_of_a_stage_stay_until_it_is_left() -> None:
    with Stage([works, works], 0.01) as stage:
        assert stage.run().total_ns > 0
        assert all(thread.is_alive() for thread in stage._threads)
    assert not any(thread.is_alive() for thread in stage._threads)


def test_a_text_that_is_no_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="no truth"):
        Truth.from_json("{}")
    with pytest.raises(ValueError, match="Expecting value"):
        Truth.from_json("")
