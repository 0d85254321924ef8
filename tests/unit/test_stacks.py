"""From frames to stacks."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling_middleware.model import Frame, Reason, Stack
from profiling_middleware.stacks import MAX_DEPTH, NOT_SEEN_RUNNING, TRUNCATED, StackTable, reading_others

MODULE = __name__


def here() -> FrameType:
    """The caller's frame."""
    return sys._getframe(1)


def parked(work: Callable[[threading.Event, threading.Event], object]) -> tuple[threading.Thread, threading.Event]:
    """A thread that runs `work(begun, go_on)` and has set `begun`."""
    begun, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=work, args=(begun, go_on), name="parked")
    thread.start()
    assert begun.wait(10)
    return thread, go_on


def frame_of(thread: threading.Thread) -> FrameType:
    assert thread.ident is not None
    return sys._current_frames()[thread.ident]


def test_a_stack_is_read_leaf_first_with_function_file_line_and_first_line() -> None:
    def leaf() -> Stack | None:
        return StackTable().take(here())

    def caller() -> Stack | None:
        stack = leaf()
        return stack  # noqa: RET504 - the call stands on a line of its own

    stack = caller()

    assert stack is not None
    prefix = f"{MODULE}.test_a_stack_is_read_leaf_first_with_function_file_line_and_first_line"
    line = leaf.__code__.co_firstlineno
    assert stack.frames[:3] == (
        Frame(f"{prefix}.<locals>.leaf", __file__, line + 1, line),
        Frame(f"{prefix}.<locals>.caller", __file__, line + 4, line + 3),
        Frame(prefix, __file__, line + 7, line - 1),
    )


def test_methods_lambdas_and_generators_have_their_qualified_names() -> None:
    class Cart:
        def total(self) -> FrameType:
            return here()

    frames = (Cart().total(), (lambda: here())(), next(here() for _ in "x"))

    names = []
    for frame in frames:
        stack = StackTable().take(frame)
        assert stack is not None
        names.append(stack.frames[0].function.partition("<locals>.")[2])
    assert names == ["Cart.total", "<lambda>", "<genexpr>"]


@pytest.mark.parametrize(("name", "shown"), [(None, "f"), ("", "f"), (42, "f"), ("shop.cart", "shop.cart.f")])
def test_a_module_without_a_proper_name_is_left_out(name: object, shown: str) -> None:
    space: dict[str, object] = {"here": here, "__name__": name}
    exec(compile("def f():\n    return here()\n", "generated.py", "exec"), space)
    function = space["f"]
    assert callable(function)

    stack = StackTable().take(function())

    assert stack is not None
    assert stack.frames[0] == Frame(shown, "generated.py", 2, 1)


def test_the_line_is_the_one_the_frame_is_at() -> None:
    space: dict[str, object] = {"here": here, "seen": []}
    source = """def f():
    seen.append(take(here()))
    seen.append(
        take(here()))
    for _ in (1, 2):
        seen.append(take(here()))
"""
    table = StackTable()
    space["take"] = table.take
    exec(compile(source, "generated.py", "exec"), space)
    function, seen = space["f"], space["seen"]
    assert callable(function)
    assert isinstance(seen, list)

    function()

    assert [stack.frames[0].line for stack in seen] == [2, 4, 6, 6]


def test_equal_stacks_are_the_same_object() -> None:
    table = StackTable()

    def at_one_place() -> Stack | None:
        return table.take(here())

    one, other = [at_one_place() for _ in range(2)]

    assert one is not None
    assert one is other


def test_two_lines_of_one_function_are_two_stacks_and_one_function() -> None:
    table = StackTable()

    one = table.take(here())
    other = table.take(here())

    assert one is not None
    assert other is not None
    assert one is not other
    assert one.frames[0]._replace(line=0) == other.frames[0]._replace(line=0)
    assert other.frames[0].line == one.frames[0].line + 1


def test_two_instructions_on_one_line_are_one_stack() -> None:
    table = StackTable()

    one, other = table.take(here()), table.take(here())

    assert one is other


def test_a_parked_thread_gives_the_same_stack_every_time() -> None:
    def wait(begun: threading.Event, go_on: threading.Event) -> None:
        begun.set()
        go_on.wait(10)

    table = StackTable()
    thread, go_on = parked(wait)
    try:
        assert thread.ident is not None
        stacks = {table.take(frame_of(thread)) for _ in range(50)} - {None}
        # It may have been on its way into the wait at the first look.
        assert 1 <= len(stacks) <= 2
        assert {stack.frames[-1].function for stack in stacks if stack} == {"threading.Thread._bootstrap"}
    finally:
        go_on.set()
        thread.join(10)


def test_a_thread_that_went_on_while_it_was_read_gives_none() -> None:
    class Moving:
        """A frame that is at another instruction whenever it is asked, as one of a running thread may be."""

        f_back = None

        def __init__(self, frame: FrameType) -> None:
            self.f_code, self.f_globals = frame.f_code, frame.f_globals
            self._at = 0

        @property
        def f_lasti(self) -> int:
            self._at += 2
            return self._at

    assert StackTable().take(Moving(here())) is None  # type: ignore[arg-type]


@pytest.fixture
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The collector runs as often as it can; the names of the functions in which it did."""
    places: list[str] = []
    thresholds = gc.get_threshold()

    def note(phase: str, _: object) -> None:
        frame = sys._getframe(1)
        places.append(frame.f_code.co_name)

    gc.callbacks.append(note)
    gc.set_threshold(1, 1, 1)
    yield places
    gc.set_threshold(*thresholds)
    gc.callbacks.remove(note)


def test_nothing_is_collected_while_frames_of_others_are_read(collecting: list[str]) -> None:
    """In 3.11 the other thread would go on meanwhile, and its frames be no more."""
    table = StackTable()
    thread, leave = parked(lambda ready, leave: (ready.set(), leave.wait()))
    try:
        with reading_others():
            del collecting[:]
            assert table.take(frame_of(thread)) is not None
            assert collecting == [] or sys.version_info >= (3, 12)
        assert gc.isenabled()
    finally:
        leave.set()
        thread.join()


@pytest.mark.usefixtures("collecting")
def test_a_collector_that_somebody_stops_meanwhile_stays_so() -> None:
    before = gc.get_threshold()
    try:
        with reading_others():
            gc.disable()
        assert not gc.isenabled()
        assert gc.get_threshold() == before
    finally:
        gc.enable()


def test_thresholds_that_somebody_sets_meanwhile_stay() -> None:
    before = gc.get_threshold()
    try:
        with reading_others():
            gc.set_threshold(123, 4, 5)
        assert gc.get_threshold() == (123, 4, 5)
    finally:
        gc.set_threshold(*before)


def test_a_collector_that_somebody_has_stopped_stays_so() -> None:
    gc.disable()
    try:
        with reading_others():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_stack_of_512_frames_is_whole_and_a_deeper_one_is_cut_visibly() -> None:
    def descend(levels: int, begun: threading.Event, go_on: threading.Event) -> None:
        if levels:
            descend(levels - 1, begun, go_on)
        else:
            begun.set()
            go_on.wait(10)

    def depth_of(levels: int) -> tuple[tuple[Frame, ...], int]:
        thread, go_on = parked(lambda begun, go_on: descend(levels, begun, go_on))
        try:
            leaf: FrameType | None = frame_of(thread)
            stack = None
            while stack is None:
                leaf = frame_of(thread)
                stack = StackTable().take(leaf)
            count = 0
            while leaf is not None:
                count, leaf = count + 1, leaf.f_back
            return stack.frames, count
        finally:
            go_on.set()
            thread.join(10)

    shallow, count = depth_of(300)
    assert len(shallow) == count
    assert TRUNCATED not in shallow

    frames, count = depth_of(300 + MAX_DEPTH - count)
    assert (count, len(frames), frames[-1].function) == (512, 512, "threading.Thread._bootstrap")

    frames, count = depth_of(600)
    assert count > 600
    assert len(frames) == 513
    assert frames[-1] == TRUNCATED == Frame("<truncated>", "", 0, 0)
    assert frames.count(TRUNCATED) == 1


def test_what_is_hidden_is_left_out_at_the_leaf_only() -> None:
    def hidden(inner: Callable[[], Stack | None]) -> Stack | None:
        return inner()

    def shown(inner: Callable[[], Stack | None]) -> Stack | None:
        return inner()

    table = StackTable(hidden=f"{MODULE}.test_what_is_hidden_is_left_out_at_the_leaf_only.<locals>.hidden")
    leaf = hidden(lambda: table.take(sys._getframe(1)))
    assert leaf is not None
    assert leaf.frames[0].function.endswith(".test_what_is_hidden_is_left_out_at_the_leaf_only")
    both = hidden(lambda: shown(lambda: table.take(sys._getframe(1))))
    assert both is not None
    names = [frame.function.rpartition(".")[2] for frame in both.frames]
    assert names[:3] == ["shown", "<lambda>", "hidden"]


def test_interning_gives_one_object_for_equal_frames() -> None:
    table, frames = StackTable(), (Frame("f", "a.py", 1, 1),)

    assert table.intern(frames) is table.intern((Frame("f", "a.py", 1, 1),))
    assert table.intern(frames) is not table.intern((Frame("f", "a.py", 2, 1),))


def test_an_instruction_at_which_a_thread_waited_is_remembered_and_no_other() -> None:
    table = StackTable()
    thread, go_on = parked(lambda begun, go_on: (begun.set(), go_on.wait(10)))
    try:
        waiting = frame_of(thread)
        table.take(waiting)
        assert table.waits_at(waiting) is None

        table.seen_waiting(waiting, Reason.SLEEP)
        table.seen_waiting(waiting, Reason.MEASURED)

        assert table.waits_at(waiting) is Reason.MEASURED
        assert waiting.f_back is not None
        assert table.waits_at(waiting.f_back) is None
        assert table.waits_at(here()) is None
        table.clear()
        assert table.waits_at(waiting) is None
    finally:
        go_on.set()
        thread.join(10)


# -- what two stacks share --------------------------------------------------------------------------------------------


def stack(*names: str) -> Stack:
    """Leaf first; `f:3` is function f at line 3."""
    return Stack(tuple(Frame(name.partition(":")[0], "a.py", int(name.partition(":")[2] or 1), 1) for name in names))


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (("g", "f", "main"), ("h", "f", "main"), ("f", "main")),
        (("g", "f", "main"), ("f", "main"), ("f", "main")),
        (("f", "main"), ("f", "main"), ("f", "main")),
        (("g", "f:3", "main"), ("h", "f:7", "main"), ("f:0", "main")),
        (("f:3", "main"), ("f:7", "main"), ("f:0", "main")),
        (("g", "f:3", "main"), ("g", "f:7", "main"), ("f:0", "main")),
        (("a",), ("b",), ()),
        ((), ("b",), ()),
    ],
)
def test_the_common_part_is_the_callers_that_both_share(
    one: tuple[str, ...], other: tuple[str, ...], shared: tuple[str, ...]
) -> None:
    common = StackTable().common_part(stack(*one), stack(*other))

    assert common.frames == (NOT_SEEN_RUNNING, *stack(*shared).frames)


def test_functions_of_the_same_name_in_two_files_share_nothing() -> None:
    one, other = (Stack((Frame("f", file, 1, 1),)) for file in ("a.py", "b.py"))

    assert StackTable().common_part(one, other).frames == (NOT_SEEN_RUNNING,)


def test_the_common_part_of_the_same_stacks_is_the_same_object() -> None:
    table = StackTable()

    assert table.common_part(stack("g", "f"), stack("h", "f")) is table.common_part(stack("g", "f"), stack("k", "f"))


names = st.lists(st.sampled_from(["f", "g", "h", "f:2", "g:2"]), max_size=6)


@given(names, names)
def test_the_common_part_does_not_depend_on_which_was_first(one: list[str], other: list[str]) -> None:
    table = StackTable()

    assert table.common_part(stack(*one), stack(*other)) is table.common_part(stack(*other), stack(*one))


@given(names, names)
def test_the_common_part_is_a_part_of_both(one: list[str], other: list[str]) -> None:
    leaf, *shared = StackTable().common_part(stack(*one), stack(*other)).frames

    assert leaf == NOT_SEEN_RUNNING
    for whole in (stack(*one), stack(*other)):
        end = whole.frames[len(whole.frames) - len(shared) :]
        assert [frame.function for frame in end] == [frame.function for frame in shared]
        assert all(ours.line in (0, theirs.line) for ours, theirs in zip(shared, end, strict=True))


# -- bounds -----------------------------------------------------------------------------------------------------------


def generated(number: int) -> FrameType:
    space: dict[str, object] = {"here": here}
    exec(compile(f"def f{number}():\n    return here()\n", f"generated_{number}.py", "exec"), space)
    function = space[f"f{number}"]
    assert callable(function)
    frame = function()
    assert isinstance(frame, FrameType)
    return frame


def test_a_full_table_begins_anew_and_counts_that() -> None:
    table = StackTable(limit=10)
    first = table.intern((Frame("first", "", 0, 0),))

    for number in range(100):
        table.take(generated(number))
        table.make_room()

    assert table.clears >= 5
    assert table.intern((Frame("first", "", 0, 0),)) is not first


def test_a_table_with_room_is_kept() -> None:
    table = StackTable(limit=10)
    first = table.intern((Frame("first", "", 0, 0),))

    for _ in range(100):
        table.make_room()

    assert table.clears == 0
    assert table.intern((Frame("first", "", 0, 0),)) is first


def test_a_stack_that_was_handed_out_survives_a_clear() -> None:
    table = StackTable(limit=1)
    taken = table.take(generated(1))

    table.clear()

    assert taken is not None
    assert taken.frames[0].function.endswith("f1")


def test_code_that_is_gone_is_never_mistaken_for_new_code_at_its_address() -> None:
    """The table remembers codes by their address, which the next code may get once the first one is gone."""
    table = StackTable()

    for number in range(300):
        taken = table.take(generated(number))
        assert taken is not None
        assert taken.frames[0].function.endswith(f"f{number}")
        assert taken.frames[0].file == f"generated_{number}.py"
