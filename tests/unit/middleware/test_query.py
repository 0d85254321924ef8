"""What a request to a capture asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling_middleware.middleware.query import CaptureQuery, QueryError, parse_capture_query

PARAMETERS = "seconds, format, debug, upload, wait, detail, last, workers, pid"


def parse(query: str, *, kind: str = "cpu", max_seconds: float = 300) -> CaptureQuery:
    return parse_capture_query(query, kind, max_seconds=max_seconds)


def refusal(query: str, *, kind: str = "cpu") -> str:
    with pytest.raises(QueryError) as refused:
        parse(query, kind=kind)
    return str(refused.value)


def test_nothing_asked_for_is_pprof_that_is_uploaded_and_waited_for() -> None:
    assert parse("") == CaptureQuery(
        seconds=None, view=None, upload=True, wait=True, full=True, last=None, all_workers=False, pid=None
    )


@pytest.mark.parametrize(
    ("query", "full", "last"),
    [("", True, None), ("detail=full", True, None), ("detail=long", False, None), ("last=10", True, 10.0)],
)
def test_a_trace_has_a_detail_or_is_of_what_has_been(query: str, full: bool, last: float | None) -> None:
    parsed = parse(query, kind="trace")

    assert (parsed.full, parsed.last) == (full, last)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("last=31", "last = '31' is out of range: use a number of seconds, more than 0 and at most 30 (what is kept)"),
        ("last=x", "last = 'x' is not such a number"),
        ("last=5&seconds=5", "last is for what has happened, seconds for what will: leave out one of the two"),
        ("last=5&detail=full", "last has the detail that is recorded all the time: leave out detail"),
        ("detail=most", "detail = 'most' is unknown: choose from full, long"),
        ("format=html", "format = 'html' is for profiles: a trace is for Perfetto, leave it out"),
        ("debug=1", "debug = '1' is for profiles: a trace is for Perfetto, leave it out"),
    ],
)
def test_what_a_trace_cannot_be_is_refused_by_value_and_remedy(query: str, message: str) -> None:
    assert refusal(query, kind="trace").startswith(message)


@pytest.mark.parametrize("query", ["detail=full", "last=5"])
def test_what_is_for_a_trace_is_refused_for_a_profile(query: str) -> None:
    assert refusal(query, kind="block").endswith("is for a trace, and this is a block profile")


@pytest.mark.parametrize(
    ("query", "seconds"),
    [("seconds=1", 1.0), ("seconds=300", 300.0), ("seconds=0.5", 0.5), ("seconds=05", 5.0), ("seconds=%35", 5.0)],
)
def test_seconds_say_how_long(query: str, seconds: float) -> None:
    assert parse(query).seconds == seconds


@pytest.mark.parametrize(
    "text",
    ["", "abc", "-1", "+1", "1e3", "1.", ".5", "nan", "inf", "5s", "1,5", "0x10", "\uff15", "1" * 10, "1 2", "5%00"],
)
def test_seconds_that_are_no_number_are_refused_by_value_and_remedy(text: str) -> None:
    message = refusal(f"seconds={text}")

    assert message.startswith("seconds = ")
    assert "use a number of seconds, more than 0 and at most 300 (PROFILE_MAX_SECONDS)" in message


@pytest.mark.parametrize("text", ["0", "0.0", "300.1", "301", "999999999"])
def test_seconds_out_of_range_are_refused_by_value_and_remedy(text: str) -> None:
    assert refusal(f"seconds={text}") == (
        f"seconds = '{text}' is out of range: "
        "use a number of seconds, more than 0 and at most 300 (PROFILE_MAX_SECONDS)"
    )


@pytest.mark.parametrize(
    ("query", "view"),
    [
        ("format=pprof", None),
        ("format=html", "html"),
        ("format=speedscope", "speedscope"),
        ("format=text", "text"),
        ("debug=1", "text"),
        ("debug=0", None),
        ("debug=1&format=html", "text"),
        ("debug=0&format=html", "html"),
    ],
)
def test_format_and_debug_say_as_what(query: str, view: str | None) -> None:
    assert parse(query).view == view


@pytest.mark.parametrize(("query", "upload"), [("upload=0", False), ("upload=1", True)])
def test_upload_says_whether_it_is_stored(query: str, upload: bool) -> None:
    assert parse(query).upload is upload


@pytest.mark.parametrize(("query", "wait"), [("wait=0", False), ("wait=1", True)])
def test_wait_says_whether_to_answer_at_once(query: str, wait: bool) -> None:
    assert parse(query).wait is wait


def test_all_parameters_together() -> None:
    assert parse("seconds=2.5&format=html&debug=0&upload=0&wait=1&workers=all") == CaptureQuery(
        seconds=2.5, view="html", upload=False, wait=True, full=True, last=None, all_workers=True, pid=None
    )


@pytest.mark.parametrize("kind", ["cpu", "trace"])
def test_whom_to_ask(kind: str) -> None:
    assert [
        (parse(query, kind=kind).all_workers, parse(query, kind=kind).pid) for query in ("workers=all", "pid=4711")
    ] == [
        (True, None),
        (False, 4711),
    ]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("format=svg", "format = 'svg' is unknown: choose from pprof, html, speedscope, text"),
        ("format=", "format = '' is unknown: choose from pprof, html, speedscope, text"),
        ("format=HTML", "format = 'HTML' is unknown: choose from pprof, html, speedscope, text"),
        ("workers=2", "workers = '2' is unknown: choose from all"),
        ("workers=", "workers = '' is unknown: choose from all"),
        ("pid=0", "pid = '0' is no process id: use the number of a worker, as the index shows it"),
        ("pid=-1", "pid = '-1' is no process id: use the number of a worker, as the index shows it"),
        ("pid=all", "pid = 'all' is no process id: use the number of a worker, as the index shows it"),
        ("workers=all&pid=7", "workers = all is everyone, pid is one of them: leave out one of the two"),
        ("debug=2", "debug = '2' is unknown: choose from 0, 1"),
        ("debug=", "debug = '' is unknown: choose from 0, 1"),
        ("upload=no", "upload = 'no' is unknown: choose from 0, 1"),
        ("wait=false", "wait = 'false' is unknown: choose from 0, 1"),
        ("second=5", f"'second' is no parameter here: choose from {PARAMETERS}"),
        ("Seconds=5", f"'Seconds' is no parameter here: choose from {PARAMETERS}"),
        ("gc=1", f"'gc' is no parameter here: choose from {PARAMETERS}"),
        ("seconds=5&seconds=6", "seconds is given twice ('5', '6'): give it once"),
        ("seconds", "the query is not of the form name=value&name=value"),
        ("seconds=5&&upload=0", "the query is not of the form name=value&name=value"),
        ("wait=0&format=html", "wait = 0 stores pprof and cannot answer html: leave out one of the two"),
        ("wait=0&debug=1", "wait = 0 stores pprof and cannot answer text: leave out one of the two"),
        ("wait=0&upload=0", "wait = 0 with upload = 0 would lose the capture: leave out one of the two"),
    ],
)
def test_a_bad_value_is_refused_by_name_value_and_remedy(query: str, message: str) -> None:
    assert refusal(query) == message


def test_more_parameters_than_anybody_needs_are_refused() -> None:
    assert "not of the form" in refusal("&".join(f"a{n}=1" for n in range(17)))


def test_a_long_value_is_shown_in_part() -> None:
    message = refusal("format=" + "x" * 5000)

    assert "'" + "x" * 40 + "\u2026'" in message
    assert len(message) < 200


def test_what_is_shown_of_a_value_is_printable() -> None:
    assert refusal("format=%1b[31m%0d%0aSet-Cookie:x").isprintable()


@given(st.text(max_size=40))
def test_any_query_is_read_or_refused(query: str) -> None:
    try:
        parsed = parse(query)
    except QueryError as refused:
        assert str(refused)  # noqa: PT017 - either outcome is right
    else:
        assert parsed.seconds is None or 0 < parsed.seconds <= 300
