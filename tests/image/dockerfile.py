"""Reads a Dockerfile: its stages, and their instructions with the arguments put in. Only what this project's has."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, and what stands behind it."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Stage:
    """FROM, and what follows until the next one."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)


def read_dockerfile(path: Path) -> list[Stage]:
    """The stages in their order. Raises ValueError for what it does not know."""
    stages: list[Stage] = []
    arguments: dict[str, str] = {}
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        name, _, text = line.partition(" ")
        if name == "ARG" and not stages:
            key, _, value = text.partition("=")
            arguments[key] = value
        elif name == "FROM":
            match = re.fullmatch(r"\$\{(\w+)\}(?: AS (\w+))?", text)
            if match is None:
                raise ValueError(f"FROM {text}: only the arguments before it are known")
            stages.append(Stage(arguments[match[1]], match[2] or ""))
        elif stages:
            stages[-1].instructions.append(Instruction(name, text.strip()))
        else:
            raise ValueError(f"{line}: stands before the first FROM")
    return stages
