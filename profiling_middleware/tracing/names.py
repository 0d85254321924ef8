"""What coroutines and functions are called in a trace."""

from __future__ import annotations

import functools
from contextvars import Context
from typing import Any

from profiling_middleware.short_names import MOST_CHARACTERS, short_name


def coroutine_name(coroutine: Any) -> str:
    """As it is written, without its module."""
    name = str(getattr(coroutine, "__qualname__", None) or type(coroutine).__qualname__)
    return name if len(name) <= MOST_CHARACTERS else short_name(name)


def function_name(function: Any) -> str:
    """Of what is called in the end: asyncio.to_thread, Starlette and applications wrap it."""
    while isinstance(function, functools.partial):
        runs_in_context = isinstance(getattr(function.func, "__self__", None), Context)
        function = function.args[0] if runs_in_context and function.args else function.func
    return coroutine_name(function)
