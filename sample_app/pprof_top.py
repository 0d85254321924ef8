"""The functions of a profile by what they cost, as `go tool pprof -top` tells it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sample_app.pprof_reader import Profile


@dataclass(frozen=True, slots=True)
class Top:
    """One function: what it cost itself (flat), and with all that it called (cumulative)."""

    function: str
    flat: int
    cumulative: int


def top_functions(profile: Profile, sample_type: str) -> list[Top]:
    """Every function that cost something, the one with the most of its own first."""
    column = profile.column(sample_type)
    flat: Counter[str] = Counter()
    cumulative: Counter[str] = Counter()
    for sample in profile.samples:
        value = sample.values[column]
        if sample.stack:
            flat[sample.stack[0].function] += value
        for function in {frame.function for frame in sample.stack}:  # Once, however deep a recursion went.
            cumulative[function] += value
    tops = [Top(function, flat[function], total) for function, total in cumulative.items() if total]
    return sorted(tops, key=lambda top: (-top.flat, -top.cumulative, top.function))


def format_top(profile: Profile, sample_type: str, count: int = 10) -> str:
    """The first ones as a table; values in nanoseconds are told in milliseconds."""
    column = profile.column(sample_type)
    total = sum(sample.values[column] for sample in profile.samples)
    in_time = profile.sample_types[column].unit == "nanoseconds"

    def amount(value: int) -> str:
        return f"{value / 1e6:.0f}ms" if in_time else str(value)

    def share(value: int) -> str:
        return f"{100 * value / total:.1f}%" if total else "-"

    lines = [f"{'flat':>10} {'flat%':>7} {'cum':>10} {'cum%':>7}  function"]
    lines += [
        f"{amount(top.flat):>10} {share(top.flat):>7} {amount(top.cumulative):>10} "
        f"{share(top.cumulative):>7}  {top.function}"
        for top in top_functions(profile, sample_type)[:count]
    ]
    return "\n".join(lines)
