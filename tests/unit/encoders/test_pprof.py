"""profile.proto, decoded by the real protobuf package and compared with what went in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiling_middleware.encoders import pprof
from profiling_middleware.encoders.pprof import encode_pprof
from profiling_middleware.model import CaptureInfo, Frame, Label, Profile, ProfileSample, Stack, ValueType

MakeProfile = Callable[..., Profile]
MakeInfo = Callable[..., CaptureInfo]
Decode = Callable[[bytes], Any]

COST = re.compile(r"cost of encoding: \d+\.\d ms CPU")


def encoded(profile: Profile) -> bytes:
    return b"".join(encode_pprof(profile))


def one_frame(make_profile: MakeProfile, frame: Frame, *labels: Label) -> Profile:
    return make_profile(samples=[ProfileSample(Stack((frame,)), labels, (1, 2))])


def test_sample_types_stand_in_their_order_and_the_last_is_the_default(
    make_profile: MakeProfile, decode: Decode
) -> None:
    decoded = decode(encoded(make_profile()))

    assert decoded.sample_types == [("samples", "count"), ("cpu", "nanoseconds")]
    assert decoded.text(decoded.message.default_sample_type) == "cpu"


def test_period_time_and_duration_are_those_of_the_capture(make_profile: MakeProfile, decode: Decode) -> None:
    decoded = decode(encoded(make_profile()))

    message = decoded.message
    assert decoded.value_type(message.period_type) == ("cpu", "nanoseconds")
    assert (message.period, message.time_nanos, message.duration_nanos) == (
        10_000_000,
        1_769_441_400_000_000_000,
        120_000_000_000,
    )


def test_every_sample_has_its_stack_leaf_first_its_labels_and_its_values(
    make_profile: MakeProfile, decode: Decode
) -> None:
    decoded = decode(encoded(make_profile()))

    main, total = ("app.main", "/srv/app.py", 90, 80), ("shop.cart.Cart.total", "/srv/shop.py", 12, 10)
    assert decoded.samples == [
        ((total, main), [("thread", "MainThread", ""), ("thread_id", 4711, "id")], (3, 30_000_000)),
        ((main,), [("thread", "worker-1", ""), ("thread_id", 4712, "id")], (1, 10_000_000)),
    ]


def test_the_mapping_claims_to_be_symbolised_and_is_the_same_in_every_process(
    make_profile: MakeProfile, make_info: MakeInfo, decode: Decode
) -> None:
    one, other = (
        decode(encoded(make_profile(info=make_info(instance=instance, capture_id=instance))))
        for instance in ("web-1-7-a", "web-2-9-b")
    )

    (mapping,) = one.message.mapping
    assert (mapping.id, mapping.memory_start, mapping.memory_limit, mapping.file_offset) == (1, 0, 0, 0)
    assert (mapping.has_functions, mapping.has_filenames, mapping.has_line_numbers) == (True, True, True)
    assert not mapping.has_inline_frames
    assert one.text(mapping.filename) == "watcher"
    assert one.text(mapping.build_id) == hashlib.sha256(b"watcher").hexdigest()[:40]
    assert other.text(other.message.mapping[0].build_id) == one.text(mapping.build_id)


def test_two_services_have_two_build_ids(make_profile: MakeProfile, make_info: MakeInfo, decode: Decode) -> None:
    one, other = (decode(encoded(make_profile(info=make_info(service=name)))) for name in ("watcher", "checkout"))

    assert one.text(one.message.mapping[0].build_id) != other.text(other.message.mapping[0].build_id)


def test_every_location_belongs_to_the_mapping_and_has_one_line(make_profile: MakeProfile, decode: Decode) -> None:
    message = decode(encoded(make_profile())).message

    assert [(each.mapping_id, len(each.line), each.address, each.is_folded) for each in message.location] == [
        (1, 1, 0, False),
        (1, 1, 0, False),
    ]


def test_the_first_string_is_empty_and_none_stands_twice(make_profile: MakeProfile, decode: Decode) -> None:
    strings = decode(encoded(make_profile())).strings

    assert strings[0] == ""
    assert len(set(strings)) == len(strings)


def test_what_samples_share_is_written_once(make_profile: MakeProfile, decode: Decode) -> None:
    shared = [Frame("f", "a.py", line, 1) for line in (2, 3)]
    samples = [ProfileSample(Stack((Frame("g", "a.py", 9, 8), frame)), (), (1, 1)) for frame in shared * 5]

    message = decode(encoded(make_profile(samples=samples))).message

    assert (len(message.function), len(message.location), len(message.sample)) == (2, 3, 10)


def test_functions_differ_by_name_file_and_first_line(make_profile: MakeProfile, decode: Decode) -> None:
    frames = (Frame("f", "a.py", 1, 1), Frame("f", "b.py", 1, 1), Frame("f", "a.py", 1, 5), Frame("g", "a.py", 1, 1))

    decoded = decode(encoded(make_profile(samples=[ProfileSample(Stack(frames), (), (1, 1))])))

    assert len(decoded.message.function) == 4
    assert decoded.stack(decoded.message.sample[0]) == frames


def test_ids_count_from_one_and_none_is_given_twice(make_profile: MakeProfile, decode: Decode) -> None:
    message = decode(encoded(make_profile())).message

    assert [function.id for function in message.function] == [1, 2]
    assert [location.id for location in message.location] == [1, 2]


def test_recursion_keeps_every_frame(make_profile: MakeProfile, decode: Decode) -> None:
    frame = Frame("fib", "fib.py", 3, 1)

    decoded = decode(encoded(make_profile(samples=[ProfileSample(Stack((frame,) * 40), (), (1, 1))])))

    assert decoded.stack(decoded.message.sample[0]) == (frame,) * 40


def test_comments_keep_their_order_and_the_cost_of_encoding_is_the_last(
    make_profile: MakeProfile, decode: Decode
) -> None:
    comments = decode(encoded(make_profile(comments=("b", "a", "b")))).comments

    assert comments[:-1] == ["b", "a", "b"]
    assert COST.fullmatch(comments[-1])


def test_a_profile_without_samples_still_says_what_it_is(make_profile: MakeProfile, decode: Decode) -> None:
    decoded = decode(encoded(make_profile(samples=[], comments=())))

    message = decoded.message
    assert (len(message.sample), len(message.location), len(message.function)) == (0, 0, 0)
    assert decoded.sample_types == [("samples", "count"), ("cpu", "nanoseconds")]
    assert (message.time_nanos, message.period, len(message.mapping)) == (1_769_441_400_000_000_000, 10_000_000, 1)


def test_a_frame_without_a_line_has_none(make_profile: MakeProfile, decode: Decode) -> None:
    decoded = decode(encoded(one_frame(make_profile, Frame("<other stacks>", "", 0, 0))))

    assert decoded.stack(decoded.message.sample[0]) == (("<other stacks>", "", 0, 0),)


def test_an_empty_stack_is_a_sample_without_locations(make_profile: MakeProfile, decode: Decode) -> None:
    decoded = decode(encoded(make_profile(samples=[ProfileSample(Stack(()), (), (1, 2))])))

    assert decoded.samples == [((), [], (1, 2))]


def test_a_value_of_zero_is_kept(make_profile: MakeProfile, decode: Decode) -> None:
    decoded = decode(encoded(make_profile(samples=[ProfileSample(Stack(()), (), (0, 0))])))

    assert decoded.samples == [((), [], (0, 0))]


def test_a_label_that_is_the_number_zero_keeps_its_unit(make_profile: MakeProfile, decode: Decode) -> None:
    decoded = decode(encoded(one_frame(make_profile, Frame("f", "", 0, 0), Label("thread_id", 0, "id"))))

    assert decoded.labels(decoded.message.sample[0]) == [("thread_id", 0, "id")]


def test_a_text_label_without_a_text_stays_one(make_profile: MakeProfile, decode: Decode) -> None:
    """As of a thread that is called nothing: it would be read as the number 0."""
    profile = one_frame(make_profile, Frame("f", "", 0, 0), Label("thread", ""))

    decoded = decode(encoded(profile))

    assert decoded.labels(decoded.message.sample[0]) == [("thread", "<unnamed>", "")]


def test_a_text_label_has_no_number_and_a_number_no_text(make_profile: MakeProfile, decode: Decode) -> None:
    labels = (Label("thread", "worker"), Label("thread_id", 5, "id"))

    message = decode(encoded(one_frame(make_profile, Frame("f", "", 0, 0), *labels))).message

    text, number = message.sample[0].label
    assert (text.num, text.num_unit, number.str) == (0, 0, 0)


def test_labels_of_the_same_text_and_another_key_stay_apart(make_profile: MakeProfile, decode: Decode) -> None:
    labels = (Label("a", "x"), Label("b", "x"), Label("a", 1, "u"), Label("a", 1, "v"))

    decoded = decode(encoded(one_frame(make_profile, Frame("f", "", 0, 0), *labels)))

    assert decoded.labels(decoded.message.sample[0]) == [("a", "x", ""), ("b", "x", ""), ("a", 1, "u"), ("a", 1, "v")]


@pytest.mark.parametrize(
    "name", ["shop.\u00e4rger", "\u30ab\u30fc\u30c8", "\U0001f40d.run", "a\x00b", "tab\tnew\nline", ""]
)
def test_any_unicode_name_is_kept(make_profile: MakeProfile, decode: Decode, name: str) -> None:
    frame = Frame(name, f"/srv/{name}.py", 3, 1)

    decoded = decode(encoded(one_frame(make_profile, frame, Label("thread", name or "x"))))

    assert decoded.stack(decoded.message.sample[0]) == (frame,)


@pytest.mark.parametrize("name", ["/srv/\udcff.py", "\ud800", "a\udc80\udc81b"])
def test_a_name_that_is_no_unicode_leaves_the_profile_readable(
    make_profile: MakeProfile, decode: Decode, name: str
) -> None:
    profile = one_frame(make_profile, Frame(name, name, 3, 1), Label("thread", name))

    decoded = decode(encoded(profile))

    ((function, file, line, start_line),) = decoded.stack(decoded.message.sample[0])
    assert (line, start_line) == (3, 1)
    assert function == file != ""


def test_two_names_that_are_no_unicode_stay_two(make_profile: MakeProfile, decode: Decode) -> None:
    frames = (Frame("\udcfe", "", 1, 1), Frame("\udcff", "", 1, 1))

    decoded = decode(encoded(make_profile(samples=[ProfileSample(Stack(frames), (), (1, 2))])))

    one, other = decoded.stack(decoded.message.sample[0])
    assert one[0] != other[0]


names = st.text(max_size=20)
int64 = st.integers(-(2**63), 2**63 - 1)
frames = st.builds(Frame, names, names, int64, int64)
labels = st.one_of(
    st.builds(Label, st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8), st.just("")),
    st.builds(Label, st.text(min_size=1, max_size=8), int64, st.text(min_size=1, max_size=8)),
)
samples = st.builds(
    ProfileSample,
    st.builds(Stack, st.lists(frames, max_size=6).map(tuple)),
    st.lists(labels, max_size=3).map(tuple),
    st.tuples(int64, int64),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(samples, max_size=8), st.lists(names, max_size=3), int64, int64, int64)
def test_whatever_goes_in_comes_out(
    make_profile: MakeProfile,
    make_info: MakeInfo,
    decode: Decode,
    given_samples: list[ProfileSample],
    comments: list[str],
    started_ns: int,
    duration_ns: int,
    period: int,
) -> None:
    profile = make_profile(
        info=make_info(started_ns=started_ns),
        samples=given_samples,
        comments=tuple(comments),
        duration_ns=duration_ns,
        period=period,
    )

    decoded = decode(encoded(profile))

    assert decoded.samples == [
        (sample.stack.frames, [tuple(label) for label in sample.labels], sample.values) for sample in given_samples
    ]
    assert decoded.comments[:-1] == comments
    message = decoded.message
    assert (message.time_nanos, message.duration_nanos, message.period) == (started_ns, duration_ns, period)


def test_other_sample_types_are_written_as_they_are_given(make_profile: MakeProfile, decode: Decode) -> None:
    wall = ValueType("wall", "nanoseconds")

    decoded = decode(encoded(make_profile(sample_types=(ValueType("samples", "count"), wall), period_type=wall)))

    assert decoded.sample_types == [("samples", "count"), ("wall", "nanoseconds")]
    assert decoded.value_type(decoded.message.period_type) == ("wall", "nanoseconds")
    assert decoded.text(decoded.message.default_sample_type) == "wall"


def test_the_same_profile_gives_the_same_bytes_but_for_the_cost_of_encoding(make_profile: MakeProfile) -> None:
    one, other = (re.sub(COST.pattern.encode(), b"", encoded(make_profile())) for _ in range(2))

    assert one == other


def test_the_cost_of_encoding_is_the_threads_cpu_time(
    make_profile: MakeProfile, decode: Decode, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([1_000_000, 13_460_000])
    monkeypatch.setattr(pprof.time, "thread_time_ns", lambda: next(readings))

    assert decode(encoded(make_profile())).comments[-1] == "cost of encoding: 12.5 ms CPU"


def test_the_message_comes_in_small_chunks(make_profile: MakeProfile) -> None:
    many = [
        ProfileSample(Stack(tuple(Frame(f"f{n}.{k}", "a.py", k, 1) for k in range(30))), (), (1, 1)) for n in range(200)
    ]

    assert max(map(len, encode_pprof(make_profile(samples=many)))) < 1000
