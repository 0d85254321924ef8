"""How stacks are taken. `make_engine` picks the best engine this interpreter and machine allow."""

from __future__ import annotations

from profiling_middleware.config import Settings, SettingsError
from profiling_middleware.sampling.engine import Engine
from profiling_middleware.sampling.python import PythonEngine


def check_engine(settings: Settings) -> None:
    """Raises SettingsError when the engine PROFILE_ENGINE names is not to be had."""
    if settings.engine in ("native", "polling"):
        raise SettingsError(
            "engine", settings.engine, "is not part of this build: use python, or auto for the best there is"
        )


def make_engine(settings: Settings) -> Engine:
    """The engine PROFILE_ENGINE asks for. Raises SettingsError when a named one is not to be had."""
    check_engine(settings)
    return PythonEngine(rate=settings.sample_rate, max_overhead=settings.max_overhead)
