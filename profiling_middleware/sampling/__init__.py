"""How stacks are taken. `make_engine` picks the best engine this interpreter and machine allow."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

from profiling_middleware.config import Settings, SettingsError
from profiling_middleware.labels import CURRENT, LabelMaker
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.sampling.engine import Engine
from profiling_middleware.sampling.python import PythonEngine


def check_engine(settings: Settings) -> None:
    """Raises SettingsError when the engine PROFILE_ENGINE names is not to be had."""
    if settings.engine not in ("native", "polling"):
        return
    reason = why_not_native()
    if reason is not None:
        remedy = f"is not to be had here ({reason}): use python, or auto for the best there is"
        raise SettingsError("engine", settings.engine, remedy)
    if settings.engine == "native" and not _signal_is_free():
        remedy = (
            "needs SIGPROF, and somebody else handles it in this process: use polling, or auto for the best there is"
        )
        raise SettingsError("engine", settings.engine, remedy)


def _signal_is_free() -> bool:
    from profiling_middleware.sampling import _native

    return _native.could_install()


@functools.cache
def why_not_native() -> str | None:
    """Why there is no native engine here, None when there is. Found out once: it takes stacks of known shape."""
    try:
        with THIS_PROCESS.imports.underway():
            _native = import_module("profiling_middleware.sampling._native")
    except ModuleNotFoundError:
        return "the C extension was not built for this Python and machine"
    except ImportError as error:
        return f"the C extension cannot be loaded: {error}"
    from profiling_middleware.sampling.selftest import why_not_native as failed_test

    return failed_test(_native)


def why_this_engine(settings: Settings, name: str) -> str | None:
    """Why the engine in use, called `name`, is not the native one; None when it is."""
    if name == "native":
        return None
    if settings.engine == name:
        return f"PROFILE_ENGINE={name} asks for it"
    if name == "polling":
        return "SIGPROF belongs to somebody else in this process"
    return why_not_native()


def make_label_maker(settings: Settings) -> LabelMaker | None:
    """What makes labels that the engine of these settings can read; None when it can read none."""
    if settings.engine == "python" or why_not_native() is not None:
        return None
    from profiling_middleware.sampling import _native

    _native.watch(CURRENT)
    return _native.Label


def find_extension(settings: Settings) -> Any:
    """What tells of steps of asyncio's tasks, where coroutines wait and who calls; None where it is not to be had."""
    if settings.engine == "python" or why_not_native() is not None:
        return None
    with THIS_PROCESS.imports.underway():
        # The extension would import the latter when it is asked to observe.
        from profiling_middleware.sampling import _native, specimens  # noqa: F401

    return _native


def make_engine(settings: Settings) -> Engine:
    """The engine PROFILE_ENGINE asks for. Raises SettingsError when a named one is not to be had."""
    check_engine(settings)
    if settings.engine == "python" or why_not_native() is not None:
        return PythonEngine(rate=settings.sample_rate, max_overhead=settings.max_overhead)
    with THIS_PROCESS.imports.underway():
        from profiling_middleware.sampling.native import NativeEngine
    return NativeEngine(
        rate=settings.sample_rate, max_overhead=settings.max_overhead, signals=settings.engine != "polling"
    )
