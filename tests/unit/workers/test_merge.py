"""Profiles of several workers as one."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiling_middleware.encoders.pprof import encode_pprof
from profiling_middleware.model import CaptureInfo, Frame, Label, Profile, ProfileSample, Stack, ValueType
from profiling_middleware.private_file import PrivateFile
from profiling_middleware.workers import merge
from profiling_middleware.workers.merge import Part, merge_profiles, merge_traces, read_part

MakeProfile = Callable[..., Profile]
MakeInfo = Callable[..., CaptureInfo]


def gzipped(profile: Profile) -> bytes:
    return gzip.compress(b"".join(encode_pprof(profile)))


def sums(profile: Profile) -> Counter[tuple[Any, ...]]:
    found: Counter[tuple[Any, ...]] = Counter()
    for sample in profile.samples:
        for number, value in enumerate(sample.values):
            found[sample.stack.frames, sample.labels, number] += value
    return found


def test_every_sample_of_every_part_is_in_it_under_its_pid(make_profile: MakeProfile, make_info: MakeInfo) -> None:
    one, other = make_profile(), make_profile(duration_ns=130_000_000_000, period=20_000_000)

    merged = merge_profiles(make_info(), [(11, one), (12, other)])

    expected: Counter[tuple[Any, ...]] = Counter()
    for pid, part in ((11, one), (12, other)):
        for (frames, labels, number), value in sums(part).items():
            expected[frames, (*labels, Label("pid", pid, "id")), number] += value
    assert sums(merged) == expected
    assert len(merged.samples) == 4
    assert (merged.sample_types, merged.period_type) == (one.sample_types, one.period_type)
    assert (merged.duration_ns, merged.period) == (130_000_000_000, 20_000_000)


def test_equal_stacks_of_one_process_are_added_up(make_profile: MakeProfile, make_info: MakeInfo) -> None:
    frame, label = Frame("f", "f.py", 2, 1), (Label("thread", "t"),)
    part = make_profile(samples=[ProfileSample(Stack((frame,)), label, (n, 10 * n)) for n in (1, 2, 4)])

    (sample,) = merge_profiles(make_info(), [(11, part), (11, part)]).samples

    assert sample.values == (14, 140)
    assert sample.labels == (*label, Label("pid", 11, "id"))


def test_its_comments_say_whose_is_what(make_profile: MakeProfile, make_info: MakeInfo) -> None:
    parts = [(11, make_profile(comments=("engine: a",))), (12, make_profile(comments=("engine: b",)))]

    comments = merge_profiles(make_info(instance="asker"), parts, ["workers: 2 of 2"]).comments

    assert "instance: asker" in comments
    assert comments[-3:] == ("workers: 2 of 2", "worker pid 11: engine: a", "worker pid 12: engine: b")


def test_what_counts_something_else_is_refused(make_profile: MakeProfile, make_info: MakeInfo) -> None:
    wall = make_profile(sample_types=(ValueType("samples", "count"), ValueType("wall", "nanoseconds")))

    with pytest.raises(ValueError, match=r"pid 12 counts .*wall"):
        merge_profiles(make_info(), [(11, make_profile()), (12, wall)])


def test_what_is_too_much_is_summed_and_said(
    make_profile: MakeProfile, make_info: MakeInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "MAX_SAMPLES", 3)
    stacks = [Stack((Frame(f"f{number}", "f.py", 1, 1),)) for number in range(5)]
    part = make_profile(samples=[ProfileSample(stack, (), (1, 10)) for stack in stacks])

    merged = merge_profiles(make_info(), [(11, part)])

    assert len(merged.samples) == 4
    assert sum(sample.values[1] for sample in merged.samples) == 50
    assert merged.samples[-1].stack.frames[0].function == "<other stacks>"
    assert any(comment.startswith("dropped: the stacks of 2 samples") for comment in merged.comments)


def test_a_part_is_read(make_profile: MakeProfile, make_info: MakeInfo) -> None:
    profile, info = make_profile(), make_info(capture_id="ff")

    read = read_part(Part(pid=11, instance="i", body=gzipped(profile)), info)

    assert sums(read) == sums(profile)
    assert replace(read, samples=(), comments=()) == replace(profile, samples=(), comments=(), info=info)


@pytest.mark.parametrize("body", [b"", b"nothing", gzip.compress(b""), gzip.compress(b"\xff\xff")])
def test_a_part_that_is_no_profile_is_refused(make_info: MakeInfo, body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its words are the reader's
        read_part(Part(pid=11, instance="i", body=body), make_info())


@pytest.mark.parametrize("size", [10, 400_000])
def test_traces_lie_one_behind_the_other(make_info: MakeInfo, tmp_path: Path, size: int) -> None:
    file = PrivateFile(tmp_path)
    file.append(gzip.compress(b"b" * size, 0))
    bodies = [gzip.compress(b"a" * size, 0), file]
    parts = [Part(pid=number, instance="i", body=body) for number, body in enumerate(bodies)]

    body = merge_traces(make_info(kind="trace"), parts, tmp_path).body.result(0)

    assert isinstance(body, bytes) == (size == 10)
    assert gzip.decompress(body if isinstance(body, bytes) else body.read()) == b"a" * size + b"b" * size
