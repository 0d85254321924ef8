"""How stacks are taken. `make_engine` picks the best engine this interpreter and machine allow."""

from __future__ import annotations

from profiling_middleware.config import Settings, SettingsError
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.sampling.engine import Engine
from profiling_middleware.sampling.python import PythonEngine


def check_engine(settings: Settings) -> None:
    """Raises SettingsError when the engine PROFILE_ENGINE names is not to be had."""
    if settings.engine in ("native", "polling"):
        reason = why_not_native()
        if reason is not None:
            raise SettingsError(
                "engine", settings.engine, f"is not to be had here ({reason}): use python, or auto for the best there is"
            )


def why_not_native() -> str | None:
    """Why there is no native engine here, None when there is."""
    try:
        with THIS_PROCESS.imports.underway():
            from profiling_middleware.sampling import _native
    except ImportError as error:
        return f"the C extension cannot be loaded: {error}"
    from profiling_middleware.sampling.selftest import why_not_native as failed_test

    return failed_test(_native)


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
