"""Continuous profiling for Python web services, to your own S3 bucket.

Importing this package starts nothing and loads neither boto3 nor pyinstrument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profiling_middleware.config import Settings
    from profiling_middleware.middleware.asgi import ProfilingMiddleware
    from profiling_middleware.middleware.wsgi import WSGIProfilingMiddleware
    from profiling_middleware.profiler import Profiler

__all__ = ["Profiler", "ProfilingMiddleware", "Settings", "WSGIProfilingMiddleware"]

_HOMES = {
    "Profiler": "profiling_middleware.profiler",
    "ProfilingMiddleware": "profiling_middleware.middleware.asgi",
    "Settings": "profiling_middleware.config",
    "WSGIProfilingMiddleware": "profiling_middleware.middleware.wsgi",
}


def __getattr__(name: str) -> object:
    # A service that has profiling off loads the middleware it mounts and its settings, and nothing else.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
