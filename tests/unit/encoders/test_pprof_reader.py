"""What was written as pprof, read again."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling_middleware.encoders.pprof import encode_pprof
from profiling_middleware.encoders.pprof_reader import read_pprof, unzip_pprof
from profiling_middleware.encoders.protobuf import as_signed, integer, message, packed, read_fields, read_packed
from profiling_middleware.model import CaptureInfo, Frame, Label, Profile, ProfileSample, Stack, ValueType

MakeProfile = Callable[..., Profile]


def encoded(profile: Profile) -> bytes:
    return b"".join(encode_pprof(profile))


def comparable(profile: Profile) -> list[tuple[tuple[Frame, ...], tuple[Label, ...], tuple[int, ...]]]:
    return [(sample.stack.frames, sample.labels, sample.values) for sample in profile.samples]


def test_a_profile_comes_back_as_it_was(make_profile: MakeProfile) -> None:
    profile = make_profile()

    read = read_pprof(encoded(profile), profile.info)

    assert comparable(read) == comparable(profile)
    assert read.comments[:-1] == profile.comments
    assert read.comments[-1].startswith("cost of encoding: ")
    assert replace(read, samples=(), comments=()) == replace(profile, samples=(), comments=())


def test_equal_stacks_are_one_object(make_profile: MakeProfile) -> None:
    profile = make_profile()
    twice = replace(profile, samples=[*profile.samples, *profile.samples])

    samples = read_pprof(encoded(twice), profile.info).samples

    assert samples[0].stack is samples[2].stack


numbers = st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
frames = st.builds(Frame, texts, texts, st.integers(0, 1 << 20), st.integers(0, 1 << 20))
labels = st.one_of(
    st.builds(Label, texts, texts.filter(bool), st.just("")),
    st.builds(Label, texts, numbers, texts),
    st.just(Label("pid", 0, "id")),
)
profile_samples = st.builds(
    ProfileSample,
    st.builds(Stack, st.lists(frames, max_size=4).map(tuple)),
    st.lists(labels, max_size=3).map(tuple),
    st.tuples(numbers, numbers),
)


@given(st.lists(profile_samples, max_size=6))
def test_whatever_is_in_it_comes_back(samples: list[ProfileSample]) -> None:
    info = CaptureInfo(kind="cpu", service="s", instance="i", capture_id="c", started_ns=1, trigger="on demand")
    count, cpu = ValueType("samples", "count"), ValueType("cpu", "nanoseconds")
    profile = Profile(
        info=info, sample_types=(count, cpu), period_type=cpu, period=1, duration_ns=2, samples=samples, comments=()
    )

    assert comparable(read_pprof(encoded(profile), info)) == comparable(profile)


def test_a_sample_needs_a_value_of_each_type(make_profile: MakeProfile) -> None:
    profile = make_profile()
    short = [sample._replace(values=sample.values[:1]) for sample in profile.samples]

    with pytest.raises(ValueError, match="one value a sample type"):
        read_pprof(encoded(replace(profile, samples=short)), profile.info)


def test_no_string_is_counted_from_the_end(make_profile: MakeProfile) -> None:
    profile = make_profile()

    with pytest.raises(ValueError, match="string -1"):
        read_pprof(encoded(profile) + packed(13, [-1]), profile.info)


@given(st.binary(max_size=200))
def test_garbage_is_a_value_error(content: bytes) -> None:
    info = CaptureInfo(kind="cpu", service="s", instance="i", capture_id="c", started_ns=1, trigger="on demand")
    with pytest.raises(ValueError):  # noqa: PT011 - its words are those of whoever found it
        read_pprof(content, info)


@given(st.data())
def test_a_damaged_profile_is_a_value_error_or_a_profile(data: st.DataObject) -> None:
    info = CaptureInfo(kind="cpu", service="s", instance="i", capture_id="c", started_ns=1, trigger="on demand")
    cpu = ValueType("cpu", "nanoseconds")
    sample = ProfileSample(Stack((Frame("f", "f.py", 1, 1),)), (Label("pid", 7, "id"),), (5,))
    content = bytearray(
        encoded(Profile(info=info, sample_types=(cpu,), period_type=cpu, period=1, duration_ns=2, samples=[sample]))
    )
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(ValueError):
        assert isinstance(read_pprof(cut, info), Profile)


def test_only_one_gzip_member_of_a_bounded_size_is_unpacked() -> None:
    body = gzip.compress(b"x" * 1000)

    assert unzip_pprof(body, 1001) == b"x" * 1000
    for bad, most in ((body, 999), (body + body, 5000), (body[:-1], 5000), (b"no gzip", 5000), (b"", 5000)):
        with pytest.raises(ValueError, match="gzip"):
            unzip_pprof(bad, most)


@given(st.lists(numbers, max_size=8))
def test_packed_numbers_come_back(values: list[int]) -> None:
    content = packed(2, values)

    assert [as_signed(number) for _, each in read_fields(content) for number in read_packed(bytes(each))] == values


def test_fields_come_back_in_their_order() -> None:
    content = integer(1, 300) + message(2, b"abc") + message(2, b"")

    assert list(read_fields(content)) == [(1, 300), (2, b"abc"), (2, b"")]
    with pytest.raises(ValueError, match="wire type 5"):
        list(read_fields(bytes((1 << 3 | 5, 0, 0, 0, 0))))
    with pytest.raises(ValueError, match="no end"):
        list(read_fields(b"\xff" * 20))
