"""What the tests of waits ask of what was collected."""

from __future__ import annotations

from profiling_middleware.captures.collector import Sums


def delay(sums: Sums, function: str, **labels: str) -> float:
    """Nanoseconds on stacks that have this function, with these labels."""
    return sum(
        delay_ns
        for (frames, has), (_, delay_ns) in sums.items()
        if any(frame.function.endswith(function) for frame in frames)
        and all(any(label.key == key and label.value == value for label in has) for key, value in labels.items())
    )
