"""Code objects made by `exec` and freed at once, so that their addresses soon belong to other functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random

from torture.stage import Stage
from torture.truth import INNER_AT

_numbers = itertools.count()
_made = itertools.count()
_NAMES = 2_000
"""More than live at a time, but not ever more: since 3.12 names are never freed."""


def codes(stage: Stage) -> None:  # called by run
    """Made, called, freed; or part of a cycle that the garbage collector finds later."""
    random = stage.random(f"codes {next(_numbers)}")
    while not stage.stopped.is_set():
        stage.breathe(random)
        for _ in range(20):
            call_made(random)
        stage.done["functions made and freed"] += 20


def call_made(random: Random) -> None:
    """Nobody else calls a made function, unless it is a stray."""
    kind = random.choice(("plain", "plain", "plain", "generator", "coroutine", "stray"))
    name, code = make(kind)
    space: dict[str, Callable[[int], object]] = {}
    exec(code, space)
    turns = random.choice((10, 300, 3_000))
    result = space[name](turns)
    if kind == "generator":
        next(result)  # type: ignore[call-overload]
        if random.random() < 0.5:
            result.close()  # type: ignore[attr-defined]
    elif kind == "coroutine":
        try:
            result.send(None)  # type: ignore[attr-defined]
        except StopIteration:
            pass
    if kind == "stray":
        space["itself"] = space  # type: ignore[assignment]
    del result


def make(kind: str) -> tuple[str, object]:
    """Names that say where the code is: see `truth`. Only the last two lines differ between the kinds."""
    number = next(_made) % _NAMES
    first, lines = 1 + number % 61, 9 + number % 23
    name = f"{'stray' if kind == 'stray' else 'made'}_{number}_{first}_{lines}"
    inner = f"inner_{number}"
    body = [
        f"{'async ' if kind == 'coroutine' else ''}def {name}(turns):",
        "    total = 0",
        *(f"    def {inner}(more):", "        more += total", "        return more + sum(range(50))"),
        *("    for number in range(turns):", "        total += number"),
        *["    total += 1"] * (lines - 8),
        {"generator": "    yield " + inner + "(total)"}.get(kind, f"    return {inner}(total)"),
    ]
    assert body[INNER_AT].endswith(f"{inner}(more):")
    assert len(body) == lines
    return name, compile("\n" * (first - 1) + "\n".join(body), f"<made {number}>", "exec")
