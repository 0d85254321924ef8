"""Profiles that come as pprof, whoever wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks.truth.profilers.base import Seen
from sample_app.pprof_reader import PprofError, Profile


def seen_in(profile: Profile, cpu: str, counts: str | None) -> Iterator[Seen]:
    """The samples with CPU time. `cpu` and `counts` name the sample types; without counts the period tells them."""
    cpu_column = profile.column(cpu)
    count_column = None if counts is None else profile.column(counts)
    if count_column is None and profile.period <= 0:
        raise PprofError("neither a count nor a period says how many samples there are")
    for sample in profile.samples:
        value = sample.values[cpu_column]
        if value > 0:
            samples = value / profile.period if count_column is None else sample.values[count_column]
            yield Seen(sample.stack, float(value), float(samples))


def all_of(profiles: Iterable[Profile], cpu: str, counts: str | None) -> list[Seen]:
    """Several profiles that follow one another."""
    return [seen for profile in profiles for seen in seen_in(profile, cpu, counts)]
