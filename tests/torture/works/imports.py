"""Modules that are imported, forgotten, and imported again from changed files."""

from __future__ import annotations

import importlib
import sys

from torture.families import dispatch, write_family
from torture.stage import Stage

_MODULES = 6


def imports(stage: Stage) -> None:  # called by run
    """While a module is forgotten its functions still run in nobody's name; their files stay."""
    random, names = stage.random("imports"), []
    for number in range(1, _MODULES + 1):
        names.append(write_family(number, stage.directory, "imported").stem)
    sys.path.insert(0, str(stage.directory))
    while not stage.wait(0.01):
        name = random.choice(names)
        module = importlib.import_module(name)
        members = getattr(module, f"MEMBERS_{name.rpartition('_')[2]}")
        for _ in range(3):
            dispatch(random.choice(members))
        if random.random() < 0.3:
            importlib.reload(module)
        sys.modules.pop(name, None)
        stage.done["imports"] += 1
    sys.path.remove(str(stage.directory))
