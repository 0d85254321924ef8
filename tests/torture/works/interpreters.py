"""Sub-interpreters that come, work and go."""

from __future__ import annotations

import importlib
from types import ModuleType

from torture.shared import spin
from torture.stage import Stage

_OWN_GILS = 3
_PROGRAM = """
def in_another_interpreter(turns):
    total = 0
    for number in range(turns):
        total += number
    return total
for turns in (10, 1000, 20000):
    in_another_interpreter(turns)
"""


def interpreters(stage: Stage) -> None:  # called by run
    """One at a time, with this GIL and some with their own; nothing of theirs may be seen under this one's names."""
    module, random = _module(), stage.random("interpreters")
    if module is None:
        return
    run = module.run_string if hasattr(module, "run_string") else module.exec
    while not stage.wait(2 + 4 * random.random()):
        with stage.forking():  # in 3.12 a child that is made meanwhile dies
            # Each that has its own GIL leaves 3 MiB behind in 3.12 and 3.13, profiler or not.
            own_gil = stage.done["sub-interpreters"] < _OWN_GILS
            number = module.create() if own_gil else _with_this_gil(module)
            for _ in range(3):
                run(number, _PROGRAM)
                spin(100)
            module.destroy(number)
        stage.done["sub-interpreters"] += 1


def _with_this_gil(module: ModuleType) -> object:
    return module.create("legacy") if module.__name__ == "_interpreters" else module.create(isolated=False)


def _module() -> ModuleType | None:
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
