"""What several workers captured at the same time, as one profile or one trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from profiling_middleware.captures.comments import identity
from profiling_middleware.encoders.pprof_reader import read_pprof, unzip_pprof
from profiling_middleware.gil import giving_way
from profiling_middleware.model import (
    Body,
    CaptureInfo,
    Frame,
    Label,
    Profile,
    ProfileSample,
    Stack,
    Trace,
)
from profiling_middleware.private_file import PrivateFile

MAX_SAMPLES = 200_000
_MAX_UNPACKED_BYTES = 128 * 1024 * 1024
_IN_MEMORY_BYTES = 512 * 1024
_OTHER_STACKS = Stack((Frame("<other stacks>", "", 0, 0),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one worker captured."""

    pid: int
    instance: str
    body: Body = field(repr=False)
    """Gzipped, as that worker would have stored it."""
    partial: str = ""
    """Why it ended before its time, when it did."""


def read_part(part: Part, info: CaptureInfo) -> Profile:
    """A part as a profile of the capture `info`. Raises ValueError for what is none, OSError when it cannot be read."""
    body = part.body if isinstance(part.body, bytes) else part.body.read()
    with giving_way():
        return read_pprof(unzip_pprof(body, _MAX_UNPACKED_BYTES), info)


def merge_profiles(info: CaptureInfo, parts: Sequence[tuple[int, Profile]], remarks: Iterable[str] = ()) -> Profile:
    """One profile of the capture `info`, each sample labelled with the `pid` of its process.

    `parts` are process ids and what was captured there. The profile is as long as the longest; `info` says when it
    began. `remarks` become comments, as do those of the parts. Raises ValueError when they count different things.
    """
    first = parts[0][1]
    for pid, profile in parts:
        if (profile.sample_types, profile.period_type) != (first.sample_types, first.period_type):
            raise ValueError(f"pid {pid} counts {profile.sample_types}, others count {first.sample_types}")
    with giving_way():
        samples, overflowed = _sums(parts)
    about = identity(info)
    lost = [f"dropped: the stacks of {overflowed} samples, summed under <other stacks>"] if overflowed else []
    return Profile(
        info=info,
        sample_types=first.sample_types,
        period_type=first.period_type,
        period=max(profile.period for _, profile in parts),
        duration_ns=max(profile.duration_ns for _, profile in parts),
        samples=samples,
        comments=(
            *about,
            *remarks,
            *lost,
            *(f"worker pid {pid}: {line}" for pid, profile in parts for line in profile.comments if line not in about),
        ),
    )


def merge_traces(info: CaptureInfo, parts: Sequence[Part], directory: Path | None = None) -> Trace:
    """The traces one behind the other, which is one trace; a big one lies in a file in `directory`. Raises OSError."""
    body: Future[Body] = Future()
    bodies = [part.body for part in parts]
    if sum(map(len, bodies)) <= _IN_MEMORY_BYTES:
        body.set_result(b"".join(each if isinstance(each, bytes) else each.read() for each in bodies))
    else:
        file = PrivateFile(directory)
        for each in bodies:
            for chunk in (each,) if isinstance(each, bytes) else each.chunks():
                file.append(chunk)
        body.set_result(file)
    return Trace(info=info, body=body)


def _sums(parts: Sequence[tuple[int, Profile]]) -> tuple[list[ProfileSample], int]:
    """One sample a stack and labels, and how many had to be put into a common stack."""
    sums: dict[tuple[tuple[Frame, ...], tuple[Label, ...]], list[int]] = {}
    stacks: dict[tuple[Frame, ...], Stack] = {_OTHER_STACKS.frames: _OTHER_STACKS}
    labelled: dict[tuple[int, tuple[Label, ...]], tuple[Label, ...]] = {}
    overflowed = 0
    for pid, profile in parts:
        for sample in profile.samples:
            frames = stacks.setdefault(sample.stack.frames, sample.stack).frames
            labels = labelled.get((pid, sample.labels))
            if labels is None:
                labels = labelled[pid, sample.labels] = (*sample.labels, Label("pid", pid, "id"))
            if len(sums) >= MAX_SAMPLES and (frames, labels) not in sums:
                overflowed += 1
                frames = _OTHER_STACKS.frames
            values = sums.setdefault((frames, labels), [0] * len(sample.values))
            for index, value in enumerate(sample.values):
                values[index] += value
    return [
        ProfileSample(stacks[frames], labels, tuple(values)) for (frames, labels), values in sums.items()
    ], overflowed
