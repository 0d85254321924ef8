"""Encoded traces, as Perfetto's own trace_processor reads them."""

from __future__ import annotations

import itertools
import random
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from trace_kit.trace_processor import PROBLEMS, Row, TraceProcessor

from profiling_middleware.encoders import interning, perfetto, tracks
from profiling_middleware.encoders.perfetto import PerfettoEncoder
from profiling_middleware.encoders.trace_items import Count, Instant, Slice, StackSample, TraceItem
from profiling_middleware.model import Frame, Stack

MICROSECOND, SECOND = 1_000, 1_000_000_000
NOON = 5_000 * SECOND + 123_000
# How far the other clocks are ahead of the monotonic one. trace_processor tells times since the machine was started.
REAL, BOOT = 1_769_425_200 * SECOND, 777 * SECOND
PID, TID = 4711, 4712
LOOP = ("loop", TID)

SLICES = f"select name, (ts - {BOOT + NOON}) / 1000.0 as ts, dur / 1000.0 as dur, depth from slice order by ts, depth"
# From the leaf: each frame with the line that its symbols tell.
STACKS = """
with recursive chain(sample, site, place) as (
  select id, callsite_id, 0 from perf_sample
  union all
  select sample, parent_id, place + 1 from chain join stack_profile_callsite c on c.id = site
  where parent_id is not null
)
select sample, f.name as frame, s.name as function, s.source_file as file, s.line_number as line
from chain
join stack_profile_callsite c on c.id = site join stack_profile_frame f on f.id = c.frame_id
left join stack_profile_symbol s on s.symbol_set_id = f.symbol_set_id
order by sample, place
"""


@pytest.fixture(autouse=True)
def _clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perfetto, "_clocks_now", lambda: (REAL, BOOT))


def chunk(encoder: PerfettoEncoder, *items: TraceItem) -> bytes:
    return encoder.chunk(items, lambda: None)


def trace(*items: TraceItem) -> bytes:
    """Of one chunk."""
    return chunk(PerfettoEncoder(PID, "shop"), *items)


def us(number: float) -> int:
    """So many microseconds after noon."""
    return NOON + int(number * MICROSECOND)


def slices(*described: tuple[str, float, float], track: tuple[str | int, ...] = LOOP) -> list[TraceItem]:
    """Of names, beginnings and ends in microseconds; 0 for what goes on."""
    return [Slice(track, us(began), us(ended) if ended else 0, name, "step") for name, began, ended in described]


class Reader:
    """trace_processor, which must understand everything each time it is asked."""

    def __init__(self, processor: TraceProcessor) -> None:
        self._processor = processor

    def ask(self, trace: bytes, *statements: str) -> list[list[Row]]:
        *answers, problems = self._processor.query(trace, *statements, PROBLEMS)
        assert problems == []
        return answers

    def slices(self, trace: bytes) -> list[tuple[Any, ...]]:
        """Name, beginning, duration and depth of each; a duration of -0.001 µs goes on."""
        return [tuple(row.values()) for row in self.ask(trace, SLICES)[0]]

    def arguments(self, trace: bytes) -> list[dict[str, Any]]:
        """Of each slice and instant."""
        sql = """
        select s.id, substr(a.flat_key, 7) as name, coalesce(a.int_value, a.string_value) as value
        from slice s left join args a on a.arg_set_id = s.arg_set_id and a.flat_key glob 'debug.*' order by s.ts, a.id
        """
        found: dict[int, dict[str, Any]] = {}
        for row in self.ask(trace, sql)[0]:
            arguments = found.setdefault(row["id"], {})
            if row["name"] is not None:
                arguments[row["name"]] = row["value"]
        return list(found.values())

    def stacks(self, trace: bytes) -> list[list[tuple[Any, ...]]]:
        """Of each sample, from the leaf: name, function, file and line, the latter three None without symbols."""
        (rows,) = self.ask(trace, STACKS)
        return [
            [tuple(row.values())[1:] for row in group]
            for _, group in itertools.groupby(rows, lambda row: row["sample"])
        ]


@pytest.fixture(scope="module")
def reader(trace_processor: TraceProcessor) -> Reader:
    return Reader(trace_processor)


# -- slices ----------------------------------------------------------------------------------------------------------


def test_a_slice_has_its_times_its_category_and_its_arguments(reader: Reader) -> None:
    arguments = [("status", 200), ("route", "/orders/{id}"), ("less", -5), ("most", 2**63 - 1), ("none", 0)]
    body = trace(
        Slice(("request", 0), us(0), us(2_500.5), "GET /orders/{id}", "request", arguments, measures=[("us", 12_345)]),
        Slice(("request", 1), us(1), us(7), "POST /orders", "request"),
        Instant(("process",), us(3), "about", "made", [("by", "hand")]),
    )
    ((one, other, instant),) = reader.ask(body, f"select name, category, ts - {BOOT} as ts, dur from slice order by ts")
    assert one == {"name": "GET /orders/{id}", "category": "request", "ts": us(0), "dur": 2_500_000}
    assert other == {"name": "POST /orders", "category": "request", "ts": us(1), "dur": 6_000}
    assert instant == {"name": "about", "category": "made", "ts": us(3), "dur": 0}
    assert reader.arguments(body) == [{**dict(arguments), "us": 12_345}, {}, {"by": "hand"}]


NESTED = {
    "apart": [("a", 0, 2), ("b", 3, 5)],
    "one after the other": [("a", 0, 2), ("b", 2, 5), ("c", 5, 6)],
    "within": [("a", 0, 9), ("b", 2, 5), ("c", 3, 4)],
    "begin together": [("a", 0, 9), ("b", 0, 5), ("c", 0, 2)],
    "end together": [("a", 0, 9), ("b", 2, 9), ("c", 4, 9)],
    "begin and end together": [("a", 0, 9), ("b", 0, 5), ("c", 2, 5), ("d", 5, 9)],
    "an end between two": [("a", 0, 9), ("b", 1, 4), ("c", 4, 7), ("d", 4, 5)],
    "goes on": [("a", 0, 0), ("b", 0, 5), ("c", 5, 0), ("d", 6, 7)],
}


def expected(described: Iterable[tuple[str, float, float]]) -> list[tuple[Any, ...]]:
    """What is seen of slices of which none crosses another."""
    seen = []
    for name, began, ended in described:
        around = [
            other
            for other, since, until in described
            if other != name and since <= began and (not until or (ended and ended <= until))
        ]
        seen.append((name, float(began), float(ended - began) if ended else -0.001, len(around)))
    return seen


@pytest.mark.parametrize("described", NESTED.values(), ids=NESTED)
def test_slices_lie_in_each_other_in_whatever_order_they_are_told(
    described: list[tuple[str, float, float]], reader: Reader
) -> None:
    """Each order in a process of its own."""
    orders = list(itertools.permutations(slices(*described)))
    body = b"".join(chunk(PerfettoEncoder(number, "shop"), *order) for number, order in enumerate(orders, 10))
    found = reader.slices(body)
    assert sorted(found) == sorted(expected(described) * len(orders))


def test_where_microseconds_do_not_tell_slices_apart_the_outer_one_comes_first(reader: Reader) -> None:
    """Whatever is written in them: with the same times, the bytes would decide."""
    items = [Slice(LOOP, NOON + 44, NOON + 444, "outer", "step"), Slice(LOOP, NOON + 50, NOON + 440, "inner", "step")]
    bodies = []
    for number, (order, more) in enumerate(itertools.product(itertools.permutations(items), range(4)), 10):
        arguments = [[("a", 1)] * (more & 1), [("a", 1)] * (more >> 1)]
        described = [item._replace(arguments=some) for item, some in zip(order, arguments, strict=True)]
        bodies.append(chunk(PerfettoEncoder(number, "shop"), *described))
    assert sorted(reader.slices(b"".join(bodies))) == [("inner", 0, 1, 1)] * 8 + [("outer", 0, 1, 0)] * 8


def test_what_is_shorter_than_a_microsecond_has_one(reader: Reader) -> None:
    body = trace(*slices(("a", 0, 0.1), ("b", 0.2, 0.3), ("c", 5, 5)))
    assert reader.slices(body) == [("a", 0, 1, 0), ("b", 0, 1, 1), ("c", 5, 1, 0)]


def test_a_slice_may_go_on(reader: Reader) -> None:
    body = trace(*slices(("goes on", 0, 0), ("ended", 1, 2)))
    assert reader.slices(body) == [("goes on", 0, -0.001, 0), ("ended", 1, 1, 1)]


def test_rows_of_one_name_stay_apart(reader: Reader) -> None:
    """They overlap, and each has slices within."""
    items: list[TraceItem] = []
    for row in range(3):
        items += slices((f"task {row}", row, 50 + row), (f"await {row}", row + 1, 40 - row), track=("task", row))
    found = reader.slices(trace(*items))
    assert found == [
        ("task 0", 0, 50, 0),
        ("task 1", 1, 50, 0),
        ("await 0", 1, 39, 1),
        ("task 2", 2, 50, 0),
        ("await 1", 2, 37, 1),
        ("await 2", 3, 35, 1),
    ]


# -- chunks ----------------------------------------------------------------------------------------------------------


def test_chunks_follow_each_other_and_what_is_told_late_is_where_it_belongs(reader: Reader) -> None:
    encoder = PerfettoEncoder(PID, "shop")
    bodies = [
        chunk(encoder, *slices(("a", 100, 200), ("b", 250, 300))),
        # Before all of the first one, around it, and between its slices.
        chunk(encoder, *slices(("before", 10, 20), ("around", 50, 900), ("between", 210, 240), ("c", 400, 500))),
        chunk(encoder, *slices(("d", 600, 700), ("first", 1, 2))),
        chunk(encoder, *slices(("all of it is late", 5, 6))),
    ]
    assert reader.slices(b"".join(bodies)) == [
        ("first", 1, 1, 0),
        ("all of it is late", 5, 1, 0),
        ("before", 10, 10, 0),
        ("around", 50, 850, 0),
        ("a", 100, 100, 1),
        ("between", 210, 30, 1),
        ("b", 250, 50, 1),
        ("c", 400, 100, 1),
        ("d", 600, 100, 1),
    ]


def everything(number: int) -> list[TraceItem]:
    """One of each kind, which overlaps with that of the numbers around it."""
    began, ended = number * 100, number * 100 + 250
    stack = Stack((Frame(f"shop.work{number}", "/srv/shop.py", number, 1), Frame("shop.main", "/srv/shop.py", 90, 80)))
    arguments = [("number", number), ("text", f"text {number}"), ("same", "same")]
    return [
        Slice(("request", number % 4), us(began), us(ended), f"request {number}", "request", arguments, (number,)),
        Slice(("loop", TID + number), us(began + 1), us(began + 2), "step", "step", (), (number,)),
        Instant(("process",), us(began), f"instant {number}", "about", arguments),
        Count(("counter", "requests"), us(began), number),
        StackSample(TID, us(began), stack),
    ]


EVERYTHING = (
    SLICES,
    "select c.value, t.name, t.unit from counter c join counter_track t on c.track_id = t.id where t.unit = 'count'",
    "select string_value from args where flat_key = 'debug.text' order by id",
    "select t.tid, t.name from thread t join process p using (upid) where p.pid = 4711 and t.tid > 4711 order by tid",
    "select pid, name from process where pid > 0",
    "select count() as flows from flow",
)


def test_each_chunk_can_be_read_without_the_others(reader: Reader) -> None:
    """In the second one, all that it has in common with the first is there again."""
    encoder = PerfettoEncoder(PID, "shop")
    for number in range(3):
        encoder.name_thread(TID, "worker")
        body = chunk(encoder, *everything(number))
        found, counts, texts, threads, processes, flows = reader.ask(body, *EVERYTHING)
        names = [f"request {number}", f"instant {number}", "step"]
        assert sorted(row["name"] for row in found) == sorted(names)
        assert counts == [{"value": float(number), "name": "requests in flight", "unit": "count"}]
        assert texts == [{"string_value": f"text {number}"}]
        assert threads[0] == {"tid": TID, "name": "worker"}
        assert processes == [{"pid": PID, "name": "shop"}]
        assert flows == [{"flows": 1}]
        work = f"shop.work{number}"
        lines = [(work, work, "/srv/shop.py", number), ("shop.main", "shop.main", "/srv/shop.py", 90)]
        assert reader.stacks(body) == [lines if number else [(work, None, None, None), lines[1]]]


@pytest.mark.parametrize("missing", [1, 3])
def test_the_first_chunks_may_be_missing(missing: int, reader: Reader) -> None:
    encoder = PerfettoEncoder(PID, "shop")
    bodies = [chunk(encoder, *everything(number)) for number in range(5)]
    (found,) = reader.ask(b"".join(bodies[missing:]), SLICES)
    assert [row["name"] for row in found if row["name"].startswith("request")] == [
        f"request {number}" for number in range(missing, 5)
    ]
    assert {row["dur"] for row in found if row["name"].startswith("request")} == {250}


def test_traces_of_two_processes_can_be_put_one_behind_the_other(reader: Reader) -> None:
    """They ran at the same time, with the same numbers of threads, flows and rows, and the same code."""
    one, other = PerfettoEncoder(10, "web"), PerfettoEncoder(20, "worker")
    stacks = [Stack((Frame("shop.work", "/srv/shop.py", line, 1),)) for line in (5, 6)]
    bodies: dict[PerfettoEncoder, list[bytes]] = {one: [], other: []}
    for number in range(2):
        for encoder, name, stack in zip(bodies, ("web", "worker"), stacks, strict=True):
            encoder.name_thread(TID, f"thread of {name}")
            step = Slice(LOOP, us(number * 100), us(number * 100 + 50), f"{name} {number}", "step", (), (1,))
            bodies[encoder].append(chunk(encoder, step, StackSample(TID, us(number), stack)))
    threads = (
        "select p.pid, p.name as process, t.tid, t.name from thread t join process p using (upid) where tid = 4712"
    )
    of_thread = """
    select p.name as process, s.name, s.dur, s.depth from slice s join track r on s.track_id = r.id
    join thread t on t.utid = extract_arg(r.dimension_arg_set_id, 'utid') join process p using (upid) order by s.name
    """
    arrows = (
        "select a.name as a, b.name as b from flow join slice a on a.id = slice_out join slice b on b.id = slice_in"
    )
    whole = b"".join(bodies[one] + bodies[other])
    found, steps, flows = reader.ask(whole, threads, of_thread, arrows)
    assert found == [
        {"pid": 10, "process": "web", "tid": TID, "name": "thread of web"},
        {"pid": 20, "process": "worker", "tid": TID, "name": "thread of worker"},
    ]
    assert [tuple(row.values()) for row in steps] == [
        (name, f"{name} {number}", 50_000, 0) for name in ("web", "worker") for number in (0, 1)
    ]
    assert sorted(tuple(row.values()) for row in flows) == [("web 0", "web 1"), ("worker 0", "worker 1")]
    lines = [stack[0][3] for stack in reader.stacks(whole)]
    assert sorted(lines) == [5, 5, 6, 6]


def test_traces_that_share_a_chunk_can_be_put_one_behind_the_other(reader: Reader) -> None:
    """Windows that follow each other; what both have is there twice, and nothing is missing."""
    encoder = PerfettoEncoder(PID, "shop")
    bodies = [chunk(encoder, *everything(number)) for number in range(4)]
    for order in ((0, 1, 1, 2, 3), (1, 2, 3, 0, 1)):
        (found,) = reader.ask(b"".join(bodies[number] for number in order), SLICES)
        names = [row["name"] for row in found]
        assert [names.count(f"request {number}") for number in range(4)] == [1, 2, 1, 1]
        assert {row["dur"] for row in found if row["name"].startswith("request")} == {250}


def test_a_chunk_may_be_empty(reader: Reader) -> None:
    encoder = PerfettoEncoder(PID, "shop")
    bodies = [chunk(encoder), chunk(encoder, *slices(("a", 1, 2))), chunk(encoder), chunk(encoder)]
    assert reader.slices(b"".join(bodies)) == [("a", 1, 1, 0)]
    assert reader.ask(bodies[0], "select pid, name from process where pid > 0") == [[{"pid": PID, "name": "shop"}]]


def test_a_text_is_written_once_a_chunk() -> None:
    encoder = PerfettoEncoder(PID, "shop")
    stack = Stack((Frame("shop.work", "/srv/shop.py", 5, 1),))
    for _ in range(2):
        items: list[TraceItem] = [
            Slice(LOOP, us(n), us(n + 1), "its name", "category", [("key", "a value")]) for n in range(9)
        ]
        body = chunk(encoder, *items, *[StackSample(TID, us(number), stack) for number in range(9)])
        assert [body.count(text) for text in (b"its name", b"category", b"key", b"a value")] == [1] * 4
        # As a path of a mapping, in its symbols, and as the file of its one line.
        assert body.count(b"/srv/shop.py") == 3
        assert body.count(b"shop.work") == 2


def test_numbers_begin_anew_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch, reader: Reader) -> None:
    monkeypatch.setattr(perfetto, "MOST_ENTRIES", 5)
    encoder = PerfettoEncoder(PID, "shop")
    bodies = []
    for number in range(16):
        # Each time of another file, and of the same ones in another order.
        files = [Frame("of it", f"/srv/{each}.py", number + 1, 1) for each in (number, 15 - number, number % 3)]
        bodies.append(chunk(encoder, *everything(number), StackSample(TID, us(number * 100 + 50), Stack(tuple(files)))))
    whole = b"".join(bodies)
    (found,) = reader.ask(whole, SLICES)
    assert [row["name"] for row in found if row["name"].startswith("request")] == [f"request {n}" for n in range(16)]
    stacks = reader.stacks(whole)
    assert [stack[0][0] for stack in stacks[::2]] == [f"shop.work{number}" for number in range(16)]
    assert [stack[0][3] for stack in stacks[2::2]] == list(range(1, 16))
    assert [[frame[2:] for frame in stack] for stack in stacks[1::2]] == [
        [(f"/srv/{each}.py", number + 1) for each in (number, 15 - number, number % 3)] for number in range(16)
    ]
    assert len(encoder._stacks) <= 12


def test_texts_begin_anew_when_they_are_too_long(monkeypatch: pytest.MonkeyPatch, reader: Reader) -> None:
    monkeypatch.setattr(perfetto, "MOST_BYTES", 10_000)
    encoder = PerfettoEncoder(PID, "shop")
    bodies = []
    for number in range(16):
        where = (("stack", f"{number} " + "x" * 3_000),)
        bodies.append(chunk(encoder, Slice(("thread", TID), us(number), us(number + 1), "waits", "lock", where)))
        assert encoder._values.size <= 10_000
        assert len(encoder._descriptions) <= 3
    (found,) = reader.ask(b"".join(bodies), "select string_value as value from args where key = 'debug.stack'")
    assert {row["value"].split()[0] for row in found} == {str(number) for number in range(16)}


def test_names_of_threads_begin_anew_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch, reader: Reader) -> None:
    """Whoever names them names all that there are before each chunk."""
    monkeypatch.setattr(tracks, "_MOST_NAMES", 2)
    encoder = PerfettoEncoder(PID, "shop")
    bodies = []
    for number in range(6):
        encoder.name_thread(TID + number, f"thread {number}")
        bodies.append(chunk(encoder, *everything(number)))
    whole = b"".join(bodies)
    *_, threads, _, _ = reader.ask(whole, *EVERYTHING)
    assert threads == [{"tid": TID + number, "name": f"thread {number}"} for number in range(6)]
    assert len(encoder._tracks._threads) <= 2


def test_however_many_tracks_there_are_a_process_and_a_thread_stay_one(reader: Reader) -> None:
    encoder = PerfettoEncoder(PID, "shop")
    bodies = []
    for number in range(3):
        many = [Slice(("lock", row), us(number), us(number + 1), "waits", "lock") for row in range(number, 20_000, 3)]
        bodies.append(chunk(encoder, *many, *everything(number)))
    found, _, _, threads, processes, _ = reader.ask(b"".join(bodies), *EVERYTHING)
    assert len(found) == 20_000 + 9
    assert [row["tid"] for row in threads] == [TID, TID + 1, TID + 2]
    assert processes == [{"pid": PID, "name": "shop"}]


def test_tracks_have_different_numbers() -> None:
    kinds = ("thread", "loop", "state", "request", "task", "lock")
    described = [("process",), *itertools.product(kinds, (0, 1, 2**30, 2**31 - 1))]
    described += [("counter", name) for name in tracks.COUNTERS]
    one, other = tracks.Tracks(PID, "shop"), tracks.Tracks(PID + 1, "shop")
    numbers = [each.uuid(track) for each in (one, other) for track in described]
    assert len(set(numbers)) == 2 * len(described)
    assert all(0 < number < 2**63 for number in numbers)
    assert [one.uuid(track) for track in described] == numbers[: len(described)]


# -- clocks ----------------------------------------------------------------------------------------------------------


def test_times_are_those_of_the_machines_clocks(monkeypatch: pytest.MonkeyPatch, reader: Reader) -> None:
    monkeypatch.undo()
    before, now, after = time.time_ns(), time.monotonic_ns(), time.time_ns()
    sql = "select to_realtime(ts) as real, to_monotonic(ts) as monotonic from slice"
    (((row),),) = reader.ask(trace(Instant(("process",), now, "now", "about")), sql)
    assert row["monotonic"] == now // 1000 * 1000
    assert before - SECOND <= row["real"] <= after + SECOND


def test_the_time_of_day_may_be_set_back_and_the_machine_may_sleep(
    monkeypatch: pytest.MonkeyPatch, reader: Reader
) -> None:
    """After sleeping, the clock since the start of the machine is further ahead."""
    encoder = PerfettoEncoder(PID, "shop")
    bodies = []
    readings = [(REAL, BOOT), (REAL - 3600 * SECOND, BOOT), (REAL, BOOT + 500), (REAL, BOOT + 60 * SECOND)]
    for number, reading in enumerate(readings):
        monkeypatch.setattr(perfetto, "_clocks_now", lambda reading=reading: reading)
        bodies.append(chunk(encoder, *slices((f"{number}", number * 100, number * 100 + 50))))
    assert reader.slices(b"".join(bodies)) == [
        ("0", 0, 50, 0),
        ("1", 100, 50, 0),
        ("2", 200, 50, 0),  # half a microsecond is how long reading two clocks takes
        ("3", 60_000_300, 50, 0),
    ]


# -- flows -----------------------------------------------------------------------------------------------------------


def test_arrows_lead_from_each_slice_to_the_next(reader: Reader) -> None:
    def step(name: str, began: int, flows: Sequence[int] = (), last_flows: Sequence[int] = ()) -> Slice:
        return Slice(LOOP, us(began), us(began + 5), name, "step", (), flows, last_flows)

    encoder = PerfettoEncoder(PID, "shop")
    bodies = [
        chunk(encoder, step("b", 20, (2, 7)), step("a", 10, (2,)), step("most", 15, (2**32 - 1,))),
        chunk(
            encoder, step("c", 30, (2,), (7,)), step("after the end", 40, (), (2**32 - 1,)), step("alone", 50, (99,))
        ),
        # An arrow that has ended begins anew.
        chunk(encoder, step("d", 60, (7,)), step("e", 70, (), (7,))),
    ]
    arrows = (
        "select a.name as a, b.name as b from flow join slice a on a.id = slice_out join slice b on b.id = slice_in"
    )
    (found,) = reader.ask(b"".join(bodies), arrows)
    assert sorted(tuple(row.values()) for row in found) == [
        ("a", "b"),
        ("b", "c"),
        ("b", "c"),
        ("d", "e"),
        ("most", "after the end"),
    ]


# -- counters --------------------------------------------------------------------------------------------------------


def test_counters_have_their_values_and_units(reader: Reader) -> None:
    body = trace(
        Count(("counter", "cpu"), us(0), 12.5),
        Count(("counter", "cpu"), us(10), 100),
        Count(("counter", "cpu"), us(20), 0.1),
        Count(("counter", "rss"), us(0), 2**40 + 4096),
        Count(("counter", "loop_lag"), us(0), 0),
        Count(("counter", "requests"), us(0), -3),
    )
    sql = f"""
    select t.name, t.unit, (c.ts - {BOOT + NOON}) / 1000.0 as ts, c.value from counter c
    join counter_track t on c.track_id = t.id order by t.name, c.ts
    """
    (found,) = reader.ask(body, sql)
    assert [tuple(row.values()) for row in found] == [
        ("CPU", "% of a core", 0, 12.5),
        ("CPU", "% of a core", 10, 100.0),
        ("CPU", "% of a core", 20, 0.1),
        ("event loop lag", "ns", 0, 0.0),
        ("memory (resident)", "bytes", 0, float(2**40 + 4096)),
        ("requests in flight", "count", 0, -3.0),
    ]


# -- threads and processes -------------------------------------------------------------------------------------------


def test_processes_threads_and_their_rows_have_names(reader: Reader) -> None:
    encoder = PerfettoEncoder(PID, "shop")
    encoder.name_thread(TID, "worker")
    items: list[TraceItem] = [
        *slices(("on the loop", 0, 1)),
        *slices(("state", 0, 1), track=("state", TID)),
        *slices(("work", 0, 1), track=("thread", TID)),
        *slices(("of the main thread", 0, 1), track=("thread", PID)),
        *slices(("of a thread without a name", 0, 1), track=("thread", 1 << 30 | 5)),
        *slices(("request", 0, 1), track=("request", 0)),
        *slices(("task", 0, 1), track=("task", 0)),
        *slices(("lock", 0, 1), track=("lock", 0)),
    ]
    encoder.name_thread(PID, "MainThread")
    first = chunk(encoder, *items)
    encoder.name_thread(TID, "another worker")
    second = chunk(encoder, *slices(("later", 5, 6)))
    sql = """
    select s.name, r.name as track, t.tid, t.name as thread, p.name as process from slice s
    join track r on s.track_id = r.id
    left join thread t on t.utid = extract_arg(r.dimension_arg_set_id, 'utid')
    left join process p on p.upid = coalesce(t.upid, extract_arg(r.dimension_arg_set_id, 'upid')) order by s.id
    """
    (found,) = reader.ask(first, sql)
    assert {row["name"]: tuple(row.values())[1:] for row in found} == {
        "on the loop": ("event loop", TID, "worker", "shop"),
        "state": ("runs or waits", TID, "worker", "shop"),
        "work": (None, TID, "worker", "shop"),
        "of the main thread": (None, PID, "MainThread", "shop"),
        "of a thread without a name": (None, 1 << 30 | 5, None, "shop"),
        "request": ("requests", None, None, "shop"),
        "task": ("tasks", None, None, "shop"),
        "lock": ("waits for asyncio locks", None, None, "shop"),
    }
    (found,) = reader.ask(first + second, f"select name from thread where tid = {TID}")
    assert found == [{"name": "another worker"}]


UNPRINTABLE = ["für alle ✓ 你好", "lone \udc80 surrogate", "\ud800", "quote ' \" \\ \n", "", "x" * 10_000]


def as_written(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def test_names_of_every_kind_come_back(reader: Reader) -> None:
    """A surrogate that stands alone has no UTF-8: it is written as Python shows it."""
    bodies = []
    for number, text in enumerate(UNPRINTABLE):
        encoder = PerfettoEncoder(10 + number, text)
        encoder.name_thread(TID, text)
        bodies.append(
            chunk(
                encoder,
                Slice(LOOP, us(number), us(number + 0.5), text, text or "category", [(f"key {text}", text)]),
                StackSample(TID, us(number), Stack((Frame(text, f"/srv/{text}", 7, 1), Frame("main", text, 8, 1)))),
            )
        )
    whole = b"".join(bodies)
    names, arguments, threads, processes = reader.ask(
        whole,
        "select name from slice order by ts",
        "select string_value as value from slice join args using (arg_set_id) where key glob 'debug.key*' order by ts",
        f"select name from thread where tid = {TID} order by upid",
        "select name from process where pid >= 10 order by pid",
    )
    texts = list(map(as_written, UNPRINTABLE))
    assert [row["value"] for row in arguments] == texts
    nameless = [text or None for text in texts]
    assert [row["name"] or None for row in names] == nameless
    assert [row["name"] or None for row in threads] == nameless
    assert [row["name"] or None for row in processes] == nameless
    assert [[frame[1:] for frame in stack] for stack in reader.stacks(whole)] == [
        [(text, f"/srv/{text}", 7), ("main", text or "<no file>", 8)] for text in texts
    ]


# -- stacks ----------------------------------------------------------------------------------------------------------


def test_samples_have_their_stacks_with_their_lines(reader: Reader) -> None:
    """The same function at two lines, the same line of two functions, the same names in two files, no line at all."""
    stacks = [
        [("a.f", "/srv/a.py", 12, 10), ("a.main", "/srv/a.py", 90, 80)],
        [("a.f", "/srv/a.py", 13, 10), ("a.main", "/srv/a.py", 91, 80)],
        [("a.<lambda>", "/srv/a.py", 12, 12), ("a.<lambda>", "/srv/a.py", 12, 11), ("a.f", "/srv/b.py", 12, 10)],
        [("<running>", "", 0, 0), ("a.f", "/srv/a.py", 1_000_000, 10)],
        [("a.f", "/srv/a.py", 12, 10)] * 3,
    ]
    taken = [Stack(tuple(Frame(*frame) for frame in frames)) for frames in stacks]
    encoder = PerfettoEncoder(PID, "shop")
    # Each stack in both chunks: in the second one all are known.
    samples = [StackSample(TID + number, us(number), stack) for number, stack in enumerate(taken)]
    later = [StackSample(TID, us(100 + number), stack) for number, stack in enumerate(taken)]
    whole = chunk(encoder, *samples) + chunk(encoder, *later)

    def read(frame: tuple[str, str, int, int]) -> tuple[Any, ...]:
        function, file, line, _ = frame
        return (function, function, file, line) if line else (function, None, None, None)

    expected = [list(map(read, frames)) for frames in stacks]
    assert reader.stacks(whole) == expected * 2
    assert reader.stacks(chunk(encoder, *later)) == expected
    times = f"select (ts - {BOOT + NOON}) / 1000 as ts, tid from perf_sample join thread using (utid) order by ts"
    (found,) = reader.ask(whole, times)
    assert [tuple(row.values()) for row in found] == [(number, TID + number) for number in range(5)] + [
        (100 + number, TID) for number in range(5)
    ]


FILES = [
    "/srv/shop.py",
    "<string>",
    "<frozen runpy>",
    "<frozen importlib._bootstrap>",
    "shop/relative.py",
    "../up.py",
    "C:\\shop\\cart.py",
    "/srv/with space (1)/für.py",
    "<stdin>",
    "[heap]",
    "//double",
    "/",
]


def test_files_of_every_kind_have_lines(reader: Reader) -> None:
    frames = [Frame(f"f{number}", file, number + 1, 1) for number, file in enumerate(FILES)]
    body = trace(StackSample(TID, us(0), Stack(tuple(frames))))
    assert reader.stacks(body) == [[(f.function, f.function, f.file, f.line) for f in frames]]


def test_addresses_are_the_same_in_every_process() -> None:
    """Symbols are found by file and address: in a trace of two processes, those of both mean the same."""
    frames = [Frame("a.f", "/srv/a.py", 12, 10), Frame("a.f", "/srv/a.py", 13, 10), Frame("a.g", "/srv/a.py", 12, 10)]
    function = zlib.crc32(b"a.f:10")
    assert [interning._address(frame) for frame in frames[:2]] == [function << 20 | 12, function << 20 | 13]
    assert interning._address(frames[2]) not in (function << 20 | 12, function << 20 | 13)


# -- whatever there is -----------------------------------------------------------------------------------------------


Described = list[tuple[str, float, float]]


@st.composite
def nested(draw: st.DrawFn, least: int) -> Described:
    """Slices of which none crosses another; two moments that follow each other are `least` µs apart, or more."""
    gaps = st.integers(least, 3)
    described: list[list[Any]] = []
    open_: list[int] = []
    now, began = 0, False
    for begins in draw(st.lists(st.booleans(), max_size=40)):
        now += draw(gaps)
        if begins:
            open_.append(len(described))
            described.append([str(len(described)), now, 0])
        elif open_:
            number = open_.pop()
            now += began and described[number][1] == now
            described[number][2] = now
        began = begins
    for number in reversed(open_):
        now += 1
        described[number][2] = now
    return [tuple(one) for one in described]  # type: ignore[misc]


def spread(traces: Sequence[Described], order: random.Random, chunks: int) -> list[list[TraceItem]]:
    """The items of so many chunks, in any order; the slices of each trace are on a loop of their own.

    Nanoseconds tell which of two slices lies in the other one when microseconds do not.
    """
    items: list[list[TraceItem]] = [[] for _ in range(chunks)]
    for loop, described in enumerate(traces):
        for number, (name, began, ended) in enumerate(described):
            times = us(began) + number, us(ended) + 999 - number
            items[order.randrange(chunks)].append(Slice(("loop", TID + loop), *times, name, "step"))
    for each in items:
        order.shuffle(each)
    return items


LOOPS = f"""
select t.tid - {TID} as loop, s.name, (s.ts - {BOOT + NOON}) / 1000.0 as ts, s.dur / 1000.0 as dur, s.depth
from slice s join track r on s.track_id = r.id join thread t on t.utid = extract_arg(r.dimension_arg_set_id, 'utid')
"""


@settings(max_examples=6, phases=[Phase.generate])
@given(st.data(), st.randoms(use_true_random=False))
def test_whatever_lies_in_each_other_is_read_so(
    trace_processor: TraceProcessor, data: st.DataObject, order: random.Random
) -> None:
    """In one chunk also where several begin and end at the same microsecond; in several, told in any order, else."""
    for least, chunks in ((0, 1), (1, 4)):
        traces = data.draw(st.lists(nested(least), min_size=10, max_size=10))
        encoder = PerfettoEncoder(PID, "shop")
        body = b"".join(chunk(encoder, *items) for items in spread(traces, order, chunks))
        (found,) = Reader(trace_processor).ask(body, LOOPS)
        wanted = {(loop, *row) for loop, described in enumerate(traces) for row in expected_of_nested(described)}
        assert {tuple(row.values()) for row in found} == wanted


def expected_of_nested(described: Described) -> Iterator[tuple[Any, ...]]:
    """They are in the order of their beginnings, the outer one first."""
    open_: list[float] = []
    for name, began, ended in described:
        while open_ and not (ended <= open_[-1] and began < open_[-1]):
            open_.pop()
        yield name, float(began), float(ended - began), len(open_)
        open_.append(ended)


TIMES = st.integers(SECOND, 10**15) | st.sampled_from([NOON, NOON + 1, NOON + 999, NOON + 1000])
TRACKS = st.one_of(
    st.just(("process",)),
    st.tuples(st.sampled_from(["thread", "loop", "state"]), st.integers(1, 2**31 - 1)),
    st.tuples(st.sampled_from(["request", "task", "lock"]), st.integers(0, 5)),
)
TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(UNPRINTABLE)
VALUES = TEXTS | st.integers(-(2**63), 2**63 - 1)
ARGUMENTS = st.lists(st.tuples(TEXTS.filter(bool), VALUES), max_size=3)
MEASURES = st.lists(st.tuples(TEXTS.filter(bool), st.integers(-(2**63), 2**63 - 1)), max_size=2)
FLOWS = st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 3), max_size=3).map(tuple)
FRAMES = st.builds(Frame, TEXTS, TEXTS | st.sampled_from(FILES), st.integers(0, 2**31 - 1), st.integers(0, 2**20))
STACKS_ = st.builds(lambda frames: Stack(tuple(frames)), st.lists(FRAMES, min_size=1, max_size=5))
ITEMS = st.one_of(
    st.builds(Slice, TRACKS, TIMES, TIMES, TEXTS, TEXTS, ARGUMENTS, FLOWS, FLOWS, MEASURES),
    st.builds(Instant, TRACKS, TIMES, TEXTS, TEXTS, ARGUMENTS),
    st.builds(
        Count,
        st.tuples(st.just("counter"), st.sampled_from(sorted(tracks.COUNTERS))),
        TIMES,
        st.integers(-(2**63), 2**63 - 1) | st.floats(-1e15, 1e15),
    ),
    st.builds(StackSample, st.integers(1, 2**31 - 1), TIMES, STACKS_),
)


@settings(max_examples=8, phases=[Phase.generate])
@given(st.lists(st.lists(ITEMS, min_size=5, max_size=25), min_size=5, max_size=5), TEXTS)
def test_whatever_there_is_is_read_without_complaint(
    trace_processor: TraceProcessor, chunks: list[list[TraceItem]], name: str
) -> None:
    """Two processes, whose chunks come by turns."""
    encoders = PerfettoEncoder(1, name), PerfettoEncoder(2**31 - 1, name)
    bodies = []
    for encoder, items in zip(itertools.cycle(encoders), chunks, strict=False):
        encoder.name_thread(TID, name)
        bodies.append(chunk(encoder, *items))
    answers = Reader(trace_processor).ask(
        b"".join(bodies), "select count() as n from slice", "select count() as n from perf_sample"
    )
    kinds = [type(item) for items in chunks for item in items]
    assert [rows[0]["n"] for rows in answers] == [kinds.count(Slice) + kinds.count(Instant), kinds.count(StackSample)]
