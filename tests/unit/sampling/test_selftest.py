"""The self-test: an extension that sees anything but what is there is not used."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any

import pytest

from profiling_middleware.instruments.chains import running_frames
from profiling_middleware.sampling import selftest
from profiling_middleware.stacks import MAX_DEPTH

Seen = list[tuple[CodeType | int, int]]

SHAPES = [
    "a plain call",
    "a generator",
    "a coroutine",
    "Python called from C",
    "a deep stack",
    "a stack that is too deep",
]


class TruthfulStacks:
    """What an extension that understands this interpreter answers; each test makes one answer wrong."""

    Label = staticmethod(lambda resolve, subject: (resolve, subject))

    def __init__(self) -> None:
        self._watched: contextvars.ContextVar[Any] | None = None
        self.asked = 0

    def own_stack(self) -> Seen | None:
        return self._stack(sys._getframe(1))

    def own_stack_from_outside(self) -> Seen | None:
        return self._stack(sys._getframe(1))

    def watch(self, variable: contextvars.ContextVar[Any]) -> None:
        self._watched = variable

    def suspended(self, step: Any) -> tuple[int, ...] | None:
        places: tuple[int, ...] = ()
        while step is not None:
            frame, step = (step.gi_frame, None) if hasattr(step, "gi_frame") else (step.cr_frame, step.cr_await)
            places = (id(frame.f_code), frame.f_lasti, *places)
        return places

    def running(self, leaf: Any, of_task: bool) -> tuple[int, ...] | None:
        frames = running_frames(leaf) if of_task else []
        while leaf is not None and not of_task:
            frames.append(leaf)
            leaf = leaf.f_back
        return tuple(number for frame in frames for number in (id(frame.f_code), frame.f_lasti))

    def own_label(self) -> object:
        assert self._watched is not None
        value = self._watched.get(None)
        return None if value is None else value[1]

    def _stack(self, frame: Any) -> Seen:
        self.asked += 1
        stack: Seen = []
        while frame is not None and len(stack) < MAX_DEPTH:
            stack.append((frame.f_code, frame.f_lineno))
            frame = frame.f_back
        return stack if frame is None else [*stack, (1, 0)]


def ask(native: Any) -> str | None:
    return selftest.why_not_native(native)


def refusal(shape: str) -> str:
    return f"{shape} is not seen as it is on {sys.implementation.name} {sys.version.split()[0]}"


def lies_at(shape: str, lie: Callable[[Seen], Seen | None], *, outside: bool) -> TruthfulStacks:
    """Tells the truth up to one shape."""
    number = SHAPES.index(shape)

    class Liar(TruthfulStacks):
        def own_stack(self) -> Seen | None:
            stack = self._stack(sys._getframe(1))
            return lie(stack) if self.asked > 2 * number and not outside else stack

        def own_stack_from_outside(self) -> Seen | None:
            stack = self._stack(sys._getframe(1))
            return lie(stack) if self.asked > 2 * number and outside else stack

    return Liar()


def test_this_interpreter_is_understood(need_native: Callable[[], None]) -> None:
    need_native()
    from profiling_middleware.sampling import _native

    assert ask(_native) is None


def test_who_sees_all_as_it_is_is_taken() -> None:
    native = TruthfulStacks()

    assert ask(native) is None
    assert native.asked == 2 * len(SHAPES)


@pytest.mark.parametrize("outside", [False, True], ids=["own", "from outside"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_stack_that_cannot_be_read_is_a_reason(shape: str, outside: bool) -> None:
    assert ask(lies_at(shape, lambda stack: None, outside=outside)) == refusal(shape)


def another_line(stack: Seen) -> Seen:
    (code, line), *others = stack
    return [(code, line + 1), *others]


def another_callers_line(stack: Seen) -> Seen:
    leaf, (code, line), *others = stack
    return [leaf, (code, line - 1), *others]


def another_code(stack: Seen) -> Seen:
    (_, line), *others = stack
    return [(another_code.__code__, line), *others]


def one_frame_less(stack: Seen) -> Seen:
    return [*stack[:3], *stack[4:]]


def one_frame_more(stack: Seen) -> Seen:
    return [*stack[:3], stack[2], *stack[3:]]


def no_root(stack: Seen) -> Seen:
    return stack[:-1]


@pytest.mark.parametrize("outside", [False, True], ids=["own", "from outside"])
@pytest.mark.parametrize("shape", ["a plain call", "a coroutine", "a stack that is too deep"])
@pytest.mark.parametrize(
    "lie", [another_line, another_callers_line, another_code, one_frame_less, one_frame_more, no_root, lambda stack: []]
)
def test_a_lie_about_one_stack_is_a_reason(lie: Callable[[Seen], Seen], shape: str, outside: bool) -> None:
    assert ask(lies_at(shape, lie, outside=outside)) == refusal(shape)


def test_a_look_that_was_interrupted_is_taken_again() -> None:
    """A busy machine is no reason not to have the engine."""

    class Interrupted(TruthfulStacks):
        def own_stack_from_outside(self) -> Seen | None:
            stack = self._stack(sys._getframe(1))
            return None if self.asked % 4 == 2 else stack

    assert ask(Interrupted()) is None


def test_a_stack_that_is_too_deep_has_to_say_so() -> None:
    def without_the_mark(stack: Seen) -> Seen:
        return [*stack[:-1], stack[0]]

    assert ask(lies_at(SHAPES[-1], without_the_mark, outside=False)) == refusal(SHAPES[-1])


@pytest.mark.parametrize("lie", [lambda places: None, lambda places: places[:-2], lambda places: places[::-1]])
def test_a_coroutine_that_is_not_seen_waiting_where_it_does_is_a_reason(lie: Callable[[Any], Any]) -> None:
    class Liar(TruthfulStacks):
        def suspended(self, step: Any) -> tuple[int, ...] | None:
            told: tuple[int, ...] | None = lie(super().suspended(step))
            return told

    assert ask(Liar()) == "a coroutine that waits is not seen as it is"


@pytest.mark.parametrize("answer", [None, "another's"])
def test_labels_that_are_not_seen_are_a_reason(answer: object) -> None:
    class Blind(TruthfulStacks):
        def own_label(self) -> object:
            return answer if super().own_label() is not None else None

    assert ask(Blind()) == "labels are not seen in contexts"


def test_labels_where_there_are_none_are_a_reason() -> None:
    class Dreamer(TruthfulStacks):
        def own_label(self) -> object:
            return "seen"

    assert ask(Dreamer()) == "labels are not seen in contexts"


def test_the_test_leaves_no_label_behind(need_native: Callable[[], None]) -> None:
    need_native()
    from profiling_middleware.sampling import _native

    before = set(contextvars.copy_context())
    assert ask(_native) is None
    assert set(contextvars.copy_context()) == before


def test_the_test_holds_where_it_is_asked(need_native: Callable[[], None]) -> None:
    """It may be at the bottom of a recursion, or within a request, that profiling begins."""
    need_native()
    from profiling_middleware.sampling import _native

    def deep(native: ModuleType, depth: int) -> str | None:
        return deep(native, depth - 1) if depth else ask(native)

    assert deep(_native, 100) is None
    assert [deep(_native, 60) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize("wrong_of_task", [False, True])
@pytest.mark.parametrize(
    "lie",
    [lambda told: (told[0] + 1, *told[1:]), lambda told: (told[0], told[1] + 2, *told[2:]), lambda told: told[2:]],
    ids=["another code", "another instruction", "the leaf is missing"],
)
def test_callers_that_are_seen_wrongly_are_a_reason(lie: Callable[[Any], Any], wrong_of_task: bool) -> None:
    class Liar(TruthfulStacks):
        def running(self, leaf: Any, of_task: bool) -> Any:
            told = super().running(leaf, of_task)
            return lie(told) if of_task == wrong_of_task else told

    assert ask(Liar()) == "who calls is not seen as it is"


def test_callers_of_whom_nothing_is_told_are_a_reason() -> None:
    class Silent(TruthfulStacks):
        def running(self, leaf: Any, of_task: bool) -> None:
            return None

    assert ask(Silent()) == "who calls is not seen as it is"
