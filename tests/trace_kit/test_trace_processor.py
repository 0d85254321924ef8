"""What is in a trace comes back as it was written, and what is wrong with one is told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from profiling_middleware.encoders.protobuf import integer, message
from trace_kit.perfetto import MissingToolError
from trace_kit.trace_processor import BadSQLError, NotATraceError, TraceProcessor

# A time stamp that no float holds.
NOON = 1_769_425_200_000_000_001
BEGIN, END = 1, 2
SLICES = "select name, ts, dur, depth from slice order by ts"


def packet(*content: bytes) -> bytes:
    """A TracePacket of one sequence, in the Trace."""
    return message(1, b"".join(content) + integer(10, 1))


def event(time: int, kind: int, name: bytes = b"") -> bytes:
    """A TrackEvent on the one track that there is."""
    content = integer(9, kind) + integer(11, 1) + (message(23, name) if name else b"")
    return packet(integer(8, time), message(11, content))


TRACK = packet(message(60, integer(1, 1) + message(2, b"requests")))
TRACE = b"".join(
    (
        TRACK,
        event(NOON, BEGIN, b"GET /"),
        event(NOON + 10, BEGIN, "für alle".encode()),
        event(NOON + 20, END),
        event(NOON + 50, END),
    )
)


def test_slices_come_back(trace_processor: TraceProcessor) -> None:
    assert trace_processor.query(TRACE, SLICES) == [
        [
            {"name": "GET /", "ts": NOON, "dur": 50, "depth": 0},
            {"name": "für alle", "ts": NOON + 10, "dur": 10, "depth": 1},
        ]
    ]


@pytest.mark.parametrize("body", [TRACE, gzip.compress(TRACE)], ids=["plain", "gzipped"])
def test_a_file_is_as_good_as_bytes(body: bytes, trace_processor: TraceProcessor, tmp_path: Path) -> None:
    file = tmp_path / "a trace"
    file.write_bytes(body)
    assert trace_processor.query(file, SLICES) == trace_processor.query(body, SLICES)
    assert trace_processor.problems(file) == []


def test_statements_are_answered_in_their_order(trace_processor: TraceProcessor) -> None:
    first, empty, last = trace_processor.query(TRACE, "select 1 as a", "select 1 as a where false", "select 2 as a")
    assert (first, empty, last) == ([{"a": 1}], [], [{"a": 2}])


def test_without_statements_it_only_has_to_load(trace_processor: TraceProcessor) -> None:
    assert trace_processor.query(TRACE) == []


def test_values_of_every_kind(trace_processor: TraceProcessor) -> None:
    columns = (
        "-1 as less, 9223372036854775807 as most, 3.0 as three, 0.1 as tenth, '' as empty, 'a\"' || char(10) as text"
    )
    ((row,),) = trace_processor.query(TRACE, f"select {columns}, null as absent, x'00ff' as bytes")
    assert row == {
        "less": -1,
        "most": 2**63 - 1,
        "three": 3.0,
        "tenth": 0.1,
        "empty": "",
        "text": 'a"\n',
        "absent": None,
        "bytes": "AP8=",
    }
    assert isinstance(row["three"], float)


def test_an_answer_longer_than_a_reply(trace_processor: TraceProcessor) -> None:
    numbers = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 50000)"
    (rows,) = trace_processor.query(TRACE, f"{numbers} select {NOON} + i as a, {NOON} - i as b, i || '.' as c from n")
    assert rows == [{"a": NOON + i, "b": NOON - i, "c": f"{i}."} for i in range(1, 50001)]


@pytest.mark.parametrize("body", [b"garbage" * 20, gzip.compress(TRACE)[:-20]], ids=["garbage", "cut gzip"])
def test_what_is_no_trace_is_refused(body: bytes, trace_processor: TraceProcessor) -> None:
    with pytest.raises(NotATraceError, match=r"\S"):
        trace_processor.query(body, SLICES)


@pytest.mark.parametrize(
    ("sql", "message"), [("select from slice", "syntax error"), ("select nme from slice", "no such column: nme")]
)
def test_wrong_sql_is_told(sql: str, message: str, trace_processor: TraceProcessor) -> None:
    with pytest.raises(BadSQLError, match=message):
        trace_processor.query(TRACE, SLICES, sql)


def test_columns_need_names_of_their_own(trace_processor: TraceProcessor) -> None:
    with pytest.raises(BadSQLError, match=r"name, name$"):
        trace_processor.query(TRACE, "select a.name, b.name from slice a join slice b on b.parent_id = a.id")


def test_slices_that_cross_are_a_problem(trace_processor: TraceProcessor) -> None:
    crossing = [event(NOON, BEGIN, b"a"), event(NOON + 1, BEGIN, b"b"), event(NOON + 2, END, b"a")]
    trace = TRACK + b"".join(crossing) + event(NOON + 3, END, b"b")
    assert trace_processor.problems(trace) == [{"name": "misplaced_end_event", "value": 1, "severity": "data_loss"}]


def test_a_skipped_packet_is_a_problem(trace_processor: TraceProcessor) -> None:
    needs_what_was_never_sent = integer(13, 2)
    trace = TRACE + packet(integer(8, NOON), needs_what_was_never_sent, message(11, integer(9, END) + integer(11, 1)))
    assert [problem["name"] for problem in trace_processor.problems(trace)] == ["tokenizer_skipped_packets"]


def test_what_is_left_out_is_no_problem(trace_processor: TraceProcessor) -> None:
    """Who wants to know that every beginning has its end, and the other way round, has to count slices."""
    trace = TRACK + event(NOON, END) + event(NOON + 1, BEGIN, b"has no end")
    assert trace_processor.problems(trace) == []
    assert trace_processor.query(trace, "select name, dur from slice") == [[{"name": "has no end", "dur": -1}]]


def test_without_node_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingToolError, match="node is not installed: apt-get install nodejs"):
        TraceProcessor()
