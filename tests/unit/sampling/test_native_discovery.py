"""No thread is overlooked, whatever moment of its beginning the engine looks in."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable

import pytest
from engine_kit import DEADLINE, Heard, NotOfThreading, burn, is_found_with_what_it_used

from profiling_middleware.sampling.engine import Engine

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the native engine is Linux's")

OpenEngine = Callable[..., Engine]
WORD, SEARCHED = 8, 64 * 1024
MADE = (3, 0, 1, 4, 0, 2)
"""So many threads tell the number from others that grow, too."""


class NewestNumber:
    """Where the interpreter counts the thread states it has made: `interp->threads.next_unique_id`."""

    def __init__(self) -> None:
        interpreter = ctypes.pythonapi.PyInterpreterState_Get
        interpreter.restype = ctypes.c_void_p
        self._words = (ctypes.c_uint64 * (SEARCHED // WORD)).from_address(interpreter())
        grown = set(range(len(self._words)))
        for made in MADE:
            before = list(self._words)
            for _ in range(made):
                self._make_and_end()
            grown = {place for place in grown if self._words[place] == before[place] + made}
        (self._place,) = grown

    @staticmethod
    def _make_and_end() -> None:
        ended = threading.Event()
        NotOfThreading(ended.set)
        assert ended.wait(DEADLINE)

    @property
    def value(self) -> int:
        return self._words[self._place]

    @value.setter
    def value(self, value: int) -> None:
        self._words[self._place] = value


def test_a_thread_that_has_its_number_and_is_not_in_the_list_yet_is_found(open_engine: OpenEngine) -> None:
    """The interpreter does the one directly after the other, and the engine may look in between."""
    engine, heard, number = open_engine("native"), Heard(), NewestNumber()
    from profiling_middleware.sampling import _native

    engine.attach(heard)
    number.value += 1
    assert not _native.discover(threading.get_native_id())
    number.value -= 1
    thread = NotOfThreading(lambda: burn(0.6))
    # The engine's own thread alone finds it: nobody else looks.
    assert thread.done.wait(DEADLINE)
    engine.detach(heard)

    is_found_with_what_it_used(heard, thread.used)


def test_a_thread_that_is_over_is_not_looked_for_for_ever(open_engine: OpenEngine) -> None:
    open_engine("native")
    from profiling_middleware.sampling import _native

    number = NewestNumber()
    number.value += 1
    assert not _native.discover(threading.get_native_id())
    give_up = time.monotonic() + DEADLINE
    while not _native.discover(threading.get_native_id()):
        assert time.monotonic() < give_up
