"""The lives of real tasks in a full trace: rows, waits, and who woke whom."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import sys
import threading
import time
import weakref
from typing import Any

import pytest
from tracing_kit import spin, taken

from profiling_middleware.trace_events import AwaitEvent, StepEvent, TaskEvent, TraceEvent
from profiling_middleware.tracing import tasks
from profiling_middleware.tracing.buffer import TraceBuffer
from profiling_middleware.tracing.names import coroutine_name
from profiling_middleware.tracing.rows import NO_ROW, Rows
from profiling_middleware.tracing.tasks import FollowedTasks

Way = Any
"""See conftest."""
EAGER = pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks before 3.12")
TURN = "its turn"
SHORT = "x" * 199 + "…"


class Lives:
    """What was told of tasks, by their names."""

    def __init__(self, buffer: TraceBuffer) -> None:
        told = taken(buffer)
        self.steps: dict[str, list[StepEvent]] = {}
        self.lives: dict[str, list[TaskEvent]] = {}
        self.by_row: dict[int, list[TaskEvent]] = {}
        self.waits: list[AwaitEvent] = []
        for event in told:
            if isinstance(event, StepEvent) and event.task:
                self.steps.setdefault(event.task, []).append(event)
            elif isinstance(event, TaskEvent):
                self.lives.setdefault(event.name, []).append(event)
                self.by_row.setdefault(event.row, []).append(event)
            elif isinstance(event, AwaitEvent):
                self.waits.append(event)

    def waits_of(self, name: str) -> list[AwaitEvent]:
        """In their order."""
        (life,) = self.lives[name]
        return [
            wait
            for wait in self.waits
            if wait.row == life.row and life.began_ns <= wait.began_ns and wait.ended_ns <= life.ended_ns
        ]

    def arrows(self) -> list[tuple[str, int, str, int]]:
        """From a step of a task to a step of another one: names, and which of their steps."""
        by_number = {
            number: (name, place)
            for name, steps in self.steps.items()
            for place, step in enumerate(steps)
            for number in step.wakes
        }
        return sorted(
            (*by_number[step.woken_by], name, place)
            for name, steps in self.steps.items()
            for place, step in enumerate(steps)
            if step.woken_by
        )


async def waits_for(future: Any) -> Any:
    return await future


# -- lives -----------------------------------------------------------------------------------------------------------


def test_the_life_of_a_task_is_told_with_its_waits(way: Way, buffer: TraceBuffer) -> None:
    readings: dict[str, int] = {}

    def read(when: str) -> None:
        readings[when] = time.monotonic_ns()

    async def lives() -> None:
        read("begins")
        await asyncio.sleep(0.002)
        spin(20_000)
        await waits_for(asyncio.sleep(0.001))
        read("ends")

    async def main() -> None:
        read("not made")
        task = asyncio.create_task(lives(), name="it")
        read("made")
        spin(50_000)
        read("may begin")
        await task
        read("has ended")

    way.steps.start(buffer, full=True)
    way.run(main())
    told = Lives(buffer)
    (life,), waits, steps = told.lives["it"], told.waits_of("it"), told.steps["it"]
    assert (life.name, life.coroutine.rsplit(".")[-1]) == ("it", "lives")
    first, last = ("not made", "made") if way.hooked else ("may begin", "begins")
    assert readings[first] <= life.began_ns <= readings[last]
    assert readings["ends"] <= life.ended_ns <= readings["has ended"]
    assert life.ended_ns == steps[-1].ended_ns
    assert [wait.what for wait in waits] == [TURN, "sleep", "sleep"] if way.hooked else ["sleep", "sleep"]
    if way.hooked:
        assert waits[0].began_ns == life.began_ns + 1_000
        assert waits[0].ended_ns == steps[0].began_ns
    for wait, (one, other) in zip(waits[way.hooked :], itertools.pairwise(steps), strict=True):
        assert (wait.began_ns, wait.ended_ns) == (one.ended_ns, other.began_ns)


def test_a_task_that_goes_on_is_told_with_what_it_waits_for(way: Way, buffer: TraceBuffer) -> None:
    """Whoever runs at this moment waits for nothing, and whoever has ended does not go on."""
    going_on: list[TraceEvent] = []

    async def main() -> None:
        running = asyncio.current_task()
        assert running is not None
        running.set_name("main")
        never = asyncio.get_running_loop().create_future()
        stuck = asyncio.create_task(waits_for(never), name="stuck")
        await asyncio.create_task(asyncio.sleep(0), name="ended")
        going_on.extend(way.steps.going_on())
        never.set_result(None)
        await stuck

    way.steps.start(buffer, full=True)
    way.run(main())
    told = Lives(buffer)
    (life,), (wait,) = told.lives["stuck"], told.waits_of("stuck")[-1:]
    lives = [event for event in going_on if isinstance(event, TaskEvent)]
    assert life._replace(ended_ns=0) in lives
    assert {event.name for event in lives} <= {"stuck", "main"}
    assert [event for event in going_on if isinstance(event, AwaitEvent)] == [wait._replace(ended_ns=0)]
    assert wait.what == "waits_for"
    way.steps.start(buffer, full=False)
    assert way.steps.going_on() == ()


def test_a_wait_begins_after_the_task_where_it_is_drawn(buffer: TraceBuffer) -> None:
    """A task is told in a later chunk than its first wait: of two that begin together, that would lie around it."""
    followed = FollowedTasks(buffer)

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        followed.created(task)
        began = time.monotonic_ns() + 10**9
        followed.stepped(task, None, began, began + 5)
        (life,) = followed._tasks.values()
        (wait,) = taken(buffer, AwaitEvent)
        assert wait.began_ns // 1_000 == life.began_ns // 1_000 + 1

    asyncio.run(main())


def test_it_is_told_in_what_it_waits(way: Way, buffer: TraceBuffer) -> None:
    async def deepest() -> None:
        await asyncio.sleep(0.001)

    async def around() -> None:
        await deepest()

    async def locks(lock: asyncio.Lock) -> None:
        async with lock:
            pass

    async def generates() -> Any:
        await asyncio.sleep(0)
        yield 1

    async def generator() -> None:
        async for _ in generates():
            pass

    async def main() -> None:
        lock = asyncio.Lock()
        future = asyncio.get_running_loop().create_future()
        await lock.acquire()
        coroutines = {"nested": around(), "lock": locks(lock), "future": waits_for(future), "generator": generator()}
        made = [asyncio.create_task(coroutine, name=name) for name, coroutine in coroutines.items()]
        await asyncio.sleep(0)
        lock.release()
        future.set_result(None)
        await asyncio.wait(made)

    way.steps.start(buffer, full=True)
    way.run(main())
    told = Lives(buffer)
    what = {name: told.waits_of(name)[-1].what.rsplit(".")[-1] for name in ("nested", "lock", "future", "generator")}
    assert what == {"nested": "sleep", "lock": "acquire", "future": "waits_for", "generator": "generator"}


def test_tasks_that_overlap_have_rows_of_their_own(way: Way, buffer: TraceBuffer) -> None:
    async def main() -> None:
        for _ in range(3):
            await asyncio.gather(*(asyncio.sleep(0.001 * number) for number in range(5)))
        never = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        never.cancel()
        with pytest.raises(asyncio.CancelledError):
            await never

    way.steps.start(buffer, full=True)
    way.run(main())
    told = Lives(buffer)
    assert sum(map(len, told.lives.values())) == 17
    assert set(told.by_row) == set(range(6))
    for row in told.by_row.values():
        row.sort(key=lambda life: life.began_ns)
        assert all(one.ended_ns <= other.began_ns for one, other in itertools.pairwise(row))


def test_a_task_that_has_no_row_is_counted(buffer: TraceBuffer, hooked: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(4)))
        await asyncio.create_task(asyncio.sleep(0), name="later")

    monkeypatch.setattr(tasks, "Rows", lambda: Rows(limit=2))
    hooked.steps.start(buffer, full=True)
    hooked.run(main())
    told = Lives(buffer)
    assert buffer.dropped == 3
    assert {life.row for lives in told.lives.values() for life in lives} == {0, 1}
    assert {wait.row for wait in told.waits} == {0, 1}
    assert "later" in told.lives
    assert NO_ROW not in told.by_row


def test_so_many_tasks_are_followed_and_the_others_counted(
    buffer: TraceBuffer, hooked: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their steps are told all the same, and who comes when there is room again is followed."""
    monkeypatch.setattr(tasks, "_MOST_TASKS", 3)

    async def main() -> None:
        asyncio.current_task().set_name("main")  # type: ignore[union-attr]
        future = asyncio.get_running_loop().create_future()
        stay = [asyncio.create_task(waits_for(future), name=name) for name in "ab"]
        await asyncio.sleep(0)
        for name in "cde":
            await asyncio.create_task(asyncio.sleep(0), name=name)
            assert len(hooked.steps._tasks._tasks) == 3
        assert buffer.dropped == 3
        future.set_result(None)
        await asyncio.wait(stay)
        await asyncio.create_task(asyncio.sleep(0), name="later")

    hooked.steps.start(buffer, full=True)
    hooked.run(main())
    assert len(hooked.steps._tasks._tasks) == 0
    told = Lives(buffer)
    assert {name: len(steps) for name, steps in told.steps.items()} == {
        "main": 7,
        **dict.fromkeys("abcde", 2),
        "later": 2,
    }
    assert set(told.lives) == {"main", "a", "b", "later"}
    assert buffer.dropped == 3


def test_a_step_wakes_no_more_than_can_be_told(
    buffer: TraceBuffer, hooked: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_MOST_WAKES", 3)

    async def main() -> None:
        asyncio.current_task().set_name("main")  # type: ignore[union-attr]
        made = [asyncio.create_task(asyncio.sleep(0), name=f"{number}") for number in range(5)]
        await made[-1]
        futures = [asyncio.get_running_loop().create_future() for _ in range(5)]
        waiting = [asyncio.create_task(waits_for(future), name="waits") for future in futures]
        await asyncio.sleep(0)
        for future in futures:
            future.set_result(None)
        await waiting[-1]

    hooked.steps.start(buffer, full=True)
    hooked.run(main())
    told = Lives(buffer)
    assert [len(step.wakes) for step in told.steps["main"]] == [3, 3, 3, 1]
    assert [bool(told.steps[f"{number}"][0].woken_by) for number in range(5)] == [True] * 3 + [False] * 2
    assert sum(bool(step.woken_by) for step in told.steps["waits"]) == 6


@pytest.mark.parametrize("full", [True, False])
def test_a_long_name_is_cut(buffer: TraceBuffer, hooked: Way, full: bool) -> None:
    """Before it is kept: the next chunk may be two seconds away."""

    async def works() -> None:
        await asyncio.sleep(0)
        if full:
            (event,) = (event for event in hooked.steps.going_on() if isinstance(event, TaskEvent))
            assert event.name == SHORT
        spin(2_000_000)

    hooked.steps.start(buffer, full=full)
    task = works()
    loop = hooked.new_loop()
    loop.run_until_complete(loop.create_task(task, name="x" * 20_000))
    loop.close()
    names = {getattr(event, "task", None) or event.name for event in taken(buffer) if not isinstance(event, AwaitEvent)}
    assert names == {SHORT}


def test_tasks_that_there_are_already_are_told_from_their_next_step(way: Way, buffer: TraceBuffer) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(waits_for(future), name="old")
        await asyncio.sleep(0)
        before = time.monotonic_ns()
        way.steps.start(buffer, full=True)
        future.set_result(None)
        await task
        told = Lives(buffer)
        (life,) = told.lives["old"]
        assert before <= life.began_ns
        assert told.waits_of("old") == []

    way.run(main())


def test_nothing_is_kept_of_a_task(way: Way, buffer: TraceBuffer) -> None:
    """Neither of one that has ended, nor of one that is gone without."""

    async def main() -> list[weakref.ref[Any]]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)  # it would say that one was destroyed
        ended = asyncio.create_task(asyncio.sleep(0))
        future = loop.create_future()
        gone = loop.create_task(waits_for(future))
        await ended
        return [weakref.ref(each) for each in (ended, gone, future)]

    way.steps.start(buffer, full=True)
    references = way.run(main())
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    assert len(way.steps._tasks._tasks) == 0


def test_a_task_that_is_gone_without_an_end_gives_its_row_back(
    buffer: TraceBuffer, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits for what nobody holds is collected: a service may do that with each request."""
    monkeypatch.setattr(tasks, "Rows", lambda: Rows(limit=4))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)  # it would say that one was destroyed
        gone = []
        for _ in range(10):
            gone.append(weakref.ref(loop.create_task(waits_for(loop.create_future()))))
            await asyncio.sleep(0.001)
            gc.collect()
            assert gone[-1]() is None
        await asyncio.create_task(asyncio.sleep(0), name="later")

    way.steps.start(buffer, full=True)
    way.run(main())
    told = Lives(buffer)
    assert buffer.dropped == 0
    assert told.lives["later"][0].row < 4


def test_nothing_is_kept_when_it_is_over(hooked: Way, buffer: TraceBuffer) -> None:
    """Without the garbage collector, for which thousands of tasks are no little work."""

    async def main() -> None:
        task = asyncio.create_task(waits_for(asyncio.get_running_loop().create_future()))
        await asyncio.sleep(0)
        followed = hooked.steps._tasks
        assert len(followed._tasks) == 2
        hooked.steps.start(buffer, full=False)
        assert len(followed._tasks) == 0
        task.cancel()

    hooked.steps.start(buffer, full=True)
    hooked.run(main())


def test_a_row_is_drawn_from_when_it_was_taken(buffer: TraceBuffer) -> None:
    """A task that is older than the trace is known when its step has ended; another one may have had the row before."""

    async def main() -> None:
        old, other = asyncio.current_task(), asyncio.create_task(asyncio.sleep(0), name="other")
        assert old is not None
        old.set_name("old")
        followed = FollowedTasks(buffer)
        now = time.monotonic_ns() + 10**9
        followed.created(other)
        await other
        followed.stepped(other, None, now + 50, now + 10_000)
        followed.stepped(old, None, now, now + 10_500)
        (going_on,) = (event for event in followed.going_on() if isinstance(event, TaskEvent))
        followed.stepped(old, None, now + 10**9, now + 10**9 + 5)
        followed.stepped(other, None, now, now + 5)  # of which this is the only step that is seen
        followed.stepped(other, None, now + 1, now + 2)  # its row was another's later than that
        told = Lives(buffer)
        lives = [(life.row, life.began_ns - now, life.ended_ns - now) for life in told.lives["other"][1:]]
        assert (going_on.row, going_on.began_ns - now) == (0, 10_000)
        assert lives == [(1, 0, 5), (1, 5, 5)]
        (wait,) = (wait for wait in told.waits if wait.ended_ns == now + 10**9)
        assert (wait.row, wait.began_ns - now) == (0, 11_000)

    asyncio.run(main())


def test_the_number_of_another_task_may_come_again(buffer: TraceBuffer) -> None:
    """One that is gone without having ended has the id of a new one: its waits are not this one's."""

    async def main() -> None:
        one, other = asyncio.current_task(), asyncio.create_task(asyncio.sleep(0), name="other")
        assert one is not None
        followed = FollowedTasks(buffer)
        followed.stepped(one, None, 100, 200)
        followed._tasks[id(other)] = followed._tasks.pop(id(one))
        followed.stepped(other, None, 5_000, 6_000)
        assert taken(buffer, AwaitEvent) == []
        await other

    asyncio.run(main())


# -- who woke whom ---------------------------------------------------------------------------------------------------


def test_steps_tell_what_they_woke(way: Way, buffer: TraceBuffer) -> None:
    """A task by making it, one that waited for a future, and whoever waited for a task's end."""

    async def resolves(future: Any, failing: Any) -> None:
        await asyncio.sleep(0)
        future.set_result(None)
        failing.set_exception(LookupError())

    async def expects(failing: Any) -> None:
        with pytest.raises(LookupError):
            await failing

    async def main() -> None:
        asyncio.current_task().set_name("main")  # type: ignore[union-attr]
        loop = asyncio.get_running_loop()
        future, failing = loop.create_future(), loop.create_future()
        a = asyncio.create_task(waits_for(future), name="a")
        b = asyncio.create_task(expects(failing), name="b")
        c = asyncio.create_task(resolves(future, failing), name="c")
        await a
        await c
        await b

    way.steps.start(buffer, full=True)
    way.run(main())
    told = Lives(buffer)
    # a and b had ended by the time that main went on; without hooks, only ends of tasks are known.
    made = [("main", 0, "a", 0), ("main", 0, "b", 0), ("main", 0, "c", 0)]
    resolved = [("c", 1, "a", 1), ("c", 1, "b", 1)]
    ended = [("a", 1, "main", 1)]
    assert told.arrows() == sorted(made + resolved + ended if way.hooked else ended)


def test_what_has_not_been_woken_by_a_step_has_no_arrow(way: Way, buffer: TraceBuffer) -> None:
    """By a timer, by a callback, by nobody."""

    async def main() -> None:
        asyncio.current_task().set_name("main")  # type: ignore[union-attr]
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    way.steps.start(buffer, full=True)
    way.run(main())
    told = Lives(buffer)
    assert len(told.steps["main"]) == 4
    assert told.arrows() == []


def test_a_queue_hands_over_from_task_to_task(buffer: TraceBuffer, hooked: Way) -> None:
    async def consumes(queue: asyncio.Queue[int]) -> None:
        while await queue.get():
            pass

    async def main() -> None:
        asyncio.current_task().set_name("main")  # type: ignore[union-attr]
        queue = asyncio.Queue[int]()
        consumer = asyncio.create_task(consumes(queue), name="consumer")
        for number in (2, 1, 0):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            queue.put_nowait(number)
        await consumer

    hooked.steps.start(buffer, full=True)
    hooked.run(main())
    arrows = Lives(buffer).arrows()
    assert arrows == [
        ("consumer", 3, "main", 7),
        ("main", 0, "consumer", 0),
        ("main", 2, "consumer", 1),
        ("main", 4, "consumer", 2),
        ("main", 6, "consumer", 3),
    ]


def test_what_a_step_wakes_is_not_another_threads(buffer: TraceBuffer, hooked: Way, deadline: float) -> None:
    """Whose step ends while this one goes on."""
    made, over = threading.Event(), threading.Event()

    async def makes() -> None:
        asyncio.current_task().set_name("makes")  # type: ignore[union-attr]
        task = asyncio.create_task(asyncio.sleep(0), name="made")
        made.set()
        assert over.wait(deadline)
        await task

    async def other() -> None:
        asyncio.current_task().set_name("other")  # type: ignore[union-attr]
        assert made.wait(deadline)
        await asyncio.sleep(0)
        over.set()

    hooked.steps.start(buffer, full=True)
    thread = threading.Thread(target=hooked.run, args=(other(),))
    thread.start()
    hooked.run(makes())
    thread.join(deadline)
    assert ("makes", 0, "made", 0) in Lives(buffer).arrows()


def test_numbers_come_never_again(buffer: TraceBuffer, hooked: Way) -> None:
    """Chunks of two traces may be parts of a third one."""
    numbers: list[int] = []
    for _ in range(2):
        hooked.steps.start(buffer, full=True)
        hooked.run(waits_for(asyncio.sleep(0)))
        hooked.steps.stop()
        hooked.steps.start(buffer, full=True)
        hooked.steps.start(buffer, full=False)
        hooked.steps.start(buffer, full=True)
        hooked.run(waits_for(asyncio.sleep(0)))
        numbers += [number for step in taken(buffer, StepEvent) for number in step.wakes]
    assert len(numbers) == len(set(numbers)) > 0


def test_what_nobody_waits_for_any_more_is_forgotten(buffer: TraceBuffer, hooked: Way) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(3 * tasks._MOST_WOKEN):
            future = loop.create_future()
            future.add_done_callback(lambda _: None)
            future.set_result(None)
        assert len(hooked.steps._tasks._woken) <= tasks._MOST_WOKEN
        await asyncio.sleep(0)

    hooked.steps.start(buffer, full=True)
    hooked.run(main())
    hooked.run(asyncio.sleep(0))


def test_a_future_with_the_number_of_another_one_was_not_woken_by_it(buffer: TraceBuffer) -> None:
    async def main() -> None:
        loop, followed = asyncio.get_running_loop(), FollowedTasks(buffer)
        one, other = loop.create_future(), loop.create_future()
        one.add_done_callback(lambda _: None)
        followed.resolved(one)
        followed.resolved(other)  # nobody waits for it
        assert list(followed._woken) == [id(one)]
        followed._woken[id(other)] = followed._woken.pop(id(one))
        task = asyncio.current_task()
        assert task is not None
        followed.stepped(task, other, 100, 200)

    asyncio.run(main())
    assert [step.woken_by for step in taken(buffer, StepEvent)] == [0]


# -- eager tasks -----------------------------------------------------------------------------------------------------


@EAGER
def test_eager_tasks_take_no_row_for_ever(way: Way, buffer: TraceBuffer) -> None:
    """Many of them have ended before they are told of."""

    async def at_once() -> int:
        return 1

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(50):
            task: Any = asyncio.Task(at_once(), loop=loop, eager_start=True)  # type: ignore[call-arg]
            assert await task == 1
        await asyncio.create_task(asyncio.sleep(0), name="later")

    way.steps.start(buffer, full=True)
    way.run(main())
    told = Lives(buffer)
    assert told.lives["later"][0].row == 1
    assert buffer.dropped == 0


@EAGER
def test_eager_tasks_wait_in_what_they_have_begun(buffer: TraceBuffer, hooked: Way) -> None:
    """And what goes on is woken by what it waited for, not by who made it."""

    async def main() -> None:
        asyncio.current_task().set_name("main")  # type: ignore[union-attr]
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        task: Any = asyncio.Task(waits_for(future), loop=loop, eager_start=True, name="eager")  # type: ignore[call-arg]
        await asyncio.sleep(0)
        future.set_result(None)
        await task

    hooked.steps.start(buffer, full=True)
    hooked.run(main())
    told = Lives(buffer)
    assert [wait.what for wait in told.waits_of("eager")] == ["waits_for"]
    assert told.arrows() == [("eager", 0, "main", 2), ("main", 1, "eager", 0)]


# -- names -----------------------------------------------------------------------------------------------------------


def test_coroutines_are_called_as_they_are_written() -> None:
    class Awaitable:
        def __call__(self) -> None:
            pass

    coroutine = waits_for(None)
    with contextlib.closing(coroutine):
        assert coroutine_name(coroutine) == "waits_for"
    assert coroutine_name(Awaitable()).endswith(".Awaitable")
    assert coroutine_name(Awaitable().__call__).endswith(".Awaitable.__call__")
    assert coroutine_name(print) == "print"
