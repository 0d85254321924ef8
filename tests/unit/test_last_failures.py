"""The last failures, each reason once."""

from __future__ import annotations

import itertools

from profiling_middleware.last_failures import MAX_REASONS, Failure, LastFailures, newest


def counting() -> LastFailures:
    """Each failure comes a nanosecond after the one before it, the first one at 1."""
    moments = itertools.count(1)
    return LastFailures(lambda: next(moments))


def test_a_reason_is_there_once_with_its_last_time_and_how_often_it_was_met() -> None:
    failures = counting()

    for reason in ("no network", "no bucket", "no network"):
        failures.note("upload", reason)

    assert failures.last == (
        Failure(what="upload", reason="no network", times=2, last_ns=3),
        Failure(what="upload", reason="no bucket", times=1, last_ns=2),
    )


def test_the_same_reason_of_something_else_is_another_failure() -> None:
    failures = counting()

    failures.note("upload", "no room")
    failures.note("lost", "no room")

    assert [(failure.what, failure.times) for failure in failures.last] == [("lost", 1), ("upload", 1)]


def test_the_oldest_reasons_are_forgotten() -> None:
    failures = counting()

    for number in range(MAX_REASONS):
        failures.note("upload", f"{number}")
    failures.note("upload", "0")
    failures.note("upload", "new")

    assert [failure.reason for failure in failures.last] == ["new", "0", *(f"{9 - number}" for number in range(8))]


def test_a_password_in_a_url_is_not_kept_and_neither_is_a_long_text() -> None:
    failures = counting()

    failures.note("upload", 'Could not connect to "https://me:correct-horse@s3.example:9000/b" ' + "x" * 1000)

    (failure,) = failures.last
    assert "correct-horse" not in failure.reason
    assert failure.reason.startswith('Could not connect to "https://…@s3.example:9000/b" xxx')
    assert len(failure.reason) == 500


def test_of_several_the_newest_come_first() -> None:
    failures = counting()
    for number in range(8):
        failures.note("upload", f"{number}")
    later = LastFailures(lambda: 100)
    for number in range(8):
        later.note("capture", f"{number}")

    together = newest(failures.last, later.last)

    assert [failure.what for failure in together] == ["capture"] * 8 + ["upload"] * 2
    assert [failure.reason for failure in together[8:]] == ["7", "6"]
