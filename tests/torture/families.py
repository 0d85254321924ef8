"""Many families out of `family_0.py`, and who calls them one after the other."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

_ZERO = re.compile(r"(?<=[A-Za-z_])0\b")
_TEMPLATE = Path(__file__).with_name("family_0.py")

Members = tuple[Callable[[], object], ...]


def write_family(number: int, directory: Path, name: str) -> Path:
    """The template with another number, at lines that no other number has its functions at."""
    path = directory / f"{name}_{number}.py"
    text = _TEMPLATE.read_text()
    head, future, rest = text.partition("from __future__ import annotations\n")
    blank = "\n" * (3 * number)
    path.write_text(_ZERO.sub(str(number), head + future + blank + rest))
    return path


def load_family(path: Path) -> Members:
    """The functions of a family that are there to be called."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    members: Members = getattr(module, f"MEMBERS_{path.stem.rpartition('_')[2]}")
    return members


class Families:
    """All of them, to be called in any order."""

    _shared: Families | None = None

    @classmethod
    def shared(cls, directory: Path, number: int = 0) -> Families:
        """The same ones for everybody; `number` of them when they are first asked for."""
        if cls._shared is None:
            cls._shared = cls(directory, number)
        return cls._shared

    def __init__(self, directory: Path, number: int) -> None:
        self.all = [load_family(write_family(one, directory, "family")) for one in range(1, number + 1)]

    def call_some(self, random: Random, calls: int) -> None:
        """Calls members of different families one after the other."""
        for _ in range(calls):
            dispatch(random.choice(random.choice(self.all)))


def dispatch(member: Callable[[], object]) -> None:
    """From here on a stack belongs to one family."""
    member()  # called by dispatch: chain, deeply, closure, generators, coroutines, called_by_c, things
