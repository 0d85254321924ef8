"""What stands in the place of a coroutine function, and is none itself: frameworks ask before they await."""

from __future__ import annotations

import inspect
import sys
from typing import TypeVar

_Function = TypeVar("_Function")


def marked_as_coroutine_function(function: _Function) -> _Function:
    """The same function, and from now on a coroutine function as if it were an `async def`.

    In 3.11 for asyncio.iscoroutinefunction only: there inspect's asks nothing but the code. Who has not loaded asyncio
    has nobody who asks.
    """
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)  # type: ignore[type-var, no-any-return, unused-ignore]
    coroutines = sys.modules.get("asyncio.coroutines")
    if coroutines is not None:
        function._is_coroutine = coroutines._is_coroutine  # type: ignore[attr-defined, unused-ignore]
    return function
