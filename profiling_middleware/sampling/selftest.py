"""Whether the native engine understands the interpreter it runs in: it is asked for stacks that are known.

What a wrong layout would give is no crash, because memory is read through the kernel, but wrong names.
"""

from __future__ import annotations

import contextvars
import sys
import types
from collections.abc import Callable, Coroutine, Iterator
from types import CodeType, FrameType, GeneratorType, ModuleType
from typing import Any

from profiling_middleware.stacks import MAX_DEPTH

_DEEP = 60
_TRIES = 5


def why_not_native(native: ModuleType) -> str | None:
    """None when `native` sees all stacks of known shape as they are, else what it does not see."""
    shapes: list[tuple[str, Callable[[Callable[[], bool]], bool]]] = [
        ("a plain call", lambda look: look()),
        ("a generator", lambda look: next(_generator(look))),
        ("a coroutine", _coroutine),
        ("Python called from C", lambda look: max((None,), key=lambda _: _kept(look)) is None and _answers.pop()),
        ("a deep stack", lambda look: _deep(look, _DEEP)),
        ("a stack that is too deep", lambda look: _deep(look, MAX_DEPTH + 10)),
    ]
    for name, shape in shapes:
        # A busy machine may interrupt a look, which is taken again: what is not understood is seen wrongly each time.
        if not any(shape(lambda: _is_seen(native)) for _ in range(_TRIES)):
            return f"{name} is not seen as it is on {sys.implementation.name} {sys.version.split()[0]}"
    if not _waits_are_seen(native):
        return "a coroutine that waits is not seen as it is"
    if not _calls_are_seen(native):
        return "who calls is not seen as it is"
    return None if contextvars.Context().run(_labels_are_seen, native) else "labels are not seen in contexts"


_answers: list[bool] = []


def _kept(look: Callable[[], bool]) -> int:
    _answers.append(look())
    return 0


def _generator(look: Callable[[], bool]) -> Iterator[bool]:
    yield look()


def _coroutine(look: Callable[[], bool]) -> bool:
    async def inner() -> bool:
        return look()

    async def outer() -> bool:
        return await inner()

    return _run(outer())


def _run(coroutine: Coroutine[object, None, bool]) -> bool:
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        return bool(stopped.value)
    return False


def _deep(look: Callable[[], bool], depth: int) -> bool:
    return _deep(look, depth - 1) if depth else look()


def _is_seen(native: ModuleType) -> bool:
    frame = sys._getframe()
    real = _real(frame)
    # One line: the place at which each looks is part of the stack.
    inside, outside, real[0] = native.own_stack(), native.own_stack_from_outside(), (frame.f_code, frame.f_lineno)
    return bool(_same(inside, real)) and bool(_same(outside, real))


def _real(frame: FrameType) -> list[tuple[CodeType | int, int]]:
    stack: list[tuple[CodeType | int, int]] = []
    below: FrameType | None = frame
    while below is not None:
        stack.append((below.f_code, below.f_lineno))
        below = below.f_back
    return stack


def _same(seen: list[tuple[CodeType | int, int]] | None, real: list[tuple[CodeType | int, int]]) -> bool:
    if seen is None:
        return False
    if len(real) > MAX_DEPTH:
        return len(seen) == MAX_DEPTH + 1 and seen[:-1] == real[:MAX_DEPTH] and isinstance(seen[-1][0], int)
    return seen == real


def _waits_are_seen(native: ModuleType) -> bool:
    @types.coroutine
    def leaf() -> Iterator[None]:
        yield

    async def inner() -> None:
        await leaf()

    async def outer() -> None:
        await inner()

    waiting = outer()
    waiting.send(None)
    real: list[int] = []
    step: Any = waiting
    frame: Any
    while step is not None:
        frame, step = (step.gi_frame, None) if isinstance(step, GeneratorType) else (step.cr_frame, step.cr_await)
        real[:0] = id(frame.f_code), frame.f_lasti
    seen = native.suspended(waiting)
    waiting.close()
    return bool(seen == tuple(real))


def _calls_are_seen(native: ModuleType) -> bool:
    def is_seen(leaf: FrameType) -> bool:
        real: list[int] = []
        frame: FrameType | None = leaf
        while frame is not None:
            real += id(frame.f_code), frame.f_lasti
            frame = frame.f_back
        # Of a stack that is too deep it says nothing.
        seen, of_task = native.running(leaf, False), native.running(leaf, True)
        return seen in (None, tuple(real)) and of_task == tuple(real[:2])

    return bool(next(_generator(lambda: is_seen(sys._getframe(1)))))


def _labels_are_seen(native: ModuleType) -> bool:
    variable = contextvars.ContextVar[object]("profiling_middleware.selftest")
    native.watch(variable)
    before = native.own_label()
    variable.set(native.Label(None, "seen"))
    return before is None and native.own_label() == "seen"
