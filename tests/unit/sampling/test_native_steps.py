"""Observing the steps of asyncio's tasks: which are told, what is told of them, and that they go on as ever."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from engine_kit import DEADLINE

from profiling_middleware.sampling import specimens

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]
NewLoop = Callable[[], asyncio.AbstractEventLoop]
NEVER = 10**15
EAGER = pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks before 3.12")


@pytest.fixture
def native(need_native: Callable[[], None]) -> Iterator[Any]:
    need_native()
    from profiling_middleware.sampling import _native

    yield _native
    _native.leave_steps()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    return request.param  # type: ignore[no-any-return]


class Told:
    """Keeps what it is told, and observes from the start on."""

    def __init__(self, native: Any, *, threshold: int = 0) -> None:
        self.native, self.threshold = native, threshold
        self.steps: list[tuple[Any, Any, int, int]] = []
        self.created: list[Any] = []
        self.resolved: list[Any] = []
        self.observe()

    def observe(self) -> None:
        stepped = lambda *step: self.steps.append(step)  # noqa: E731
        assert self.native.observe_steps(stepped, self.threshold, self.created.append, self.resolved.append)

    def of(self, task: Any) -> list[tuple[Any, int, int]]:
        """What woke it, and the times of each of its steps."""
        return [step[1:] for step in self.steps if step[0] is task]


def run(new_loop: NewLoop, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """As asyncio.run(), without tasks of its own."""
    loop = new_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


async def yields(times: int) -> int:
    for _ in range(times):
        await asyncio.sleep(0)
    return times


# -- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [False, True])
def test_each_step_is_told_with_its_times(native: Any, new_loop: NewLoop, waits: bool) -> None:
    async def main() -> tuple[Any, list[tuple[int, int]]]:
        loop = asyncio.get_running_loop()
        readings = []
        for number in range(50):
            first = time.monotonic_ns()
            sum(range(number * 20))
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            readings.append((first, time.monotonic_ns()))
            await (future if waits else asyncio.sleep(0))
        readings.append((time.monotonic_ns(), time.monotonic_ns()))
        return asyncio.current_task(), readings

    told = Told(native)
    task, readings = run(new_loop, main())
    steps = told.of(task)
    assert len(steps) == len(readings) == 51
    for number, ((woken_by, began, ended), (first, last)) in enumerate(zip(steps, readings, strict=True)):
        assert (woken_by is not None) == (waits and number > 0)
        assert began <= first <= last <= ended
    for (_, _, ended), (_, began, _) in itertools.pairwise(steps):
        assert ended <= began


def test_what_woke_a_task_is_told(native: Any, new_loop: NewLoop) -> None:
    async def main() -> tuple[Any, ...]:
        loop = asyncio.get_running_loop()
        future, failing = loop.create_future(), loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
        loop.call_soon(failing.set_exception, ValueError("failed"))
        with pytest.raises(ValueError, match="failed"):
            await failing
        other = loop.create_task(yields(1))
        await other
        python = asyncio.futures._PyFuture(loop=loop)  # type: ignore[attr-defined]
        loop.call_soon(python.set_result, None)
        await python
        await asyncio.sleep(0)
        return asyncio.current_task(), None, future, failing, other, python, None

    told = Told(native)
    task, *woken_by = run(new_loop, main())
    assert [step[0] for step in told.of(task)] == woken_by


def test_the_future_of_a_cancelled_wait_is_told(native: Any, new_loop: NewLoop) -> None:
    async def waits(future: Any) -> None:
        await future

    async def main() -> tuple[Any, Any]:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(waits(future))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task, future

    told = Told(native)
    task, future = run(new_loop, main())
    assert task.cancelled()
    assert [step[0] for step in told.of(task)] == [None, future]


def test_tasks_that_there_are_already_are_observed(native: Any, new_loop: NewLoop) -> None:
    """One that waits, one that has been scheduled again, and one that has not begun."""

    async def waits(future: Any) -> None:
        await future

    async def main() -> None:
        native.leave_steps()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        waiting, going_on = loop.create_task(waits(future)), loop.create_task(yields(2))
        await asyncio.sleep(0)
        new = loop.create_task(yields(0))
        told = Told(native)
        future.set_result(None)
        await asyncio.wait([waiting, going_on, new])
        assert [step[0] for step in told.of(waiting)] == [future]
        assert [step[0] for step in told.of(going_on)] == [None, None]
        assert [step[0] for step in told.of(new)] == [None]
        assert told.created == []

    run(new_loop, main())


def test_only_steps_as_long_as_the_threshold_are_told(native: Any, new_loop: NewLoop) -> None:
    threshold = 3_000_000

    async def main() -> tuple[Any, int, int]:
        await yields(20)
        first = time.monotonic_ns()
        while (last := time.monotonic_ns()) < first + threshold:
            pass
        await yields(20)
        return asyncio.current_task(), first, last

    told = Told(native, threshold=threshold)
    task, first, last = run(new_loop, main())
    assert any(began <= first and last <= ended for _, began, ended in told.of(task))
    # A loaded machine may make some others that long.
    assert all(ended - began >= threshold for _, began, ended in told.of(task))
    assert len(told.steps) < 41

    told = Told(native, threshold=NEVER)
    run(new_loop, main())
    assert told.steps == []
    assert len(told.created) == 1


def test_a_step_is_told_when_it_is_over_in_its_thread(native: Any, new_loop: NewLoop) -> None:
    told = []
    variable: Any = __import__("contextvars").ContextVar("variable")

    async def main() -> None:
        variable.set("the task's")
        await asyncio.sleep(0)

    def stepped(task: Any, *_: object) -> None:
        current = asyncio.current_task(asyncio.get_running_loop())
        told.append((current, variable.get(), threading.get_ident(), task.done()))

    native.observe_steps(stepped, 0, None, None)
    run(new_loop, main())
    context = (None, "the task's", threading.get_ident())
    assert told == [(*context, False), (*context, True)]


def test_a_step_within_a_step_is_told_too(native: Any, new_loop: NewLoop) -> None:
    async def inner() -> Any:
        await asyncio.sleep(0)
        return asyncio.current_task()

    async def main(nest: Callable[[], Any]) -> tuple[Any, Any, Any]:
        task = nest()
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return asyncio.current_task(), task, future

    def in_this_thread() -> Any:
        outer = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return run(new_loop, inner())
        finally:
            asyncio._set_running_loop(outer)

    def in_another_thread() -> Any:
        returned: list[Any] = []
        thread = threading.Thread(target=lambda: returned.append(run(new_loop, inner())))
        thread.start()
        thread.join(DEADLINE)
        return returned[0]

    told = Told(native)
    for nest in (in_this_thread, in_another_thread):
        outer, within, future = run(new_loop, main(nest))
        ((_, began, ended),) = told.of(outer)
        assert len(told.of(within)) == 2
        assert all(began < inner_began < inner_ended < ended for _, inner_began, inner_ended in told.of(within))
        assert told.resolved[-1] is future


# -- tasks that are made ---------------------------------------------------------------------------------------------


class OldTask(asyncio.Task[Any]):
    """Of a class that is there before anybody observes."""


def test_tasks_are_told_when_they_are_made(native: Any, new_loop: NewLoop) -> None:
    told = Told(native)

    class NewTask(asyncio.Task[Any]):
        pass

    class OwnInit(NewTask):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            assert told.created[-1] is self

    async def main() -> None:
        loop = asyncio.get_running_loop()
        kinds: tuple[Any, ...] = (asyncio.Task, OldTask, NewTask, OwnInit)
        for observed in (True, False, True):
            told.created.clear()
            if observed:
                told.observe()
            else:
                native.leave_steps()
                kinds = kinds[:-1]
            tasks = [kind(yields(1), loop=loop) for kind in kinds]
            assert told.created == (tasks if observed else [])
            assert await asyncio.gather(*tasks) == [1] * len(kinds)

    run(new_loop, main())


def test_what_becomes_no_task_is_not_told(native: Any, new_loop: NewLoop) -> None:
    async def main() -> None:
        told.created.clear()
        with pytest.raises(TypeError):
            asyncio.Task(1)  # type: ignore[arg-type]

    told = Told(native)
    run(new_loop, main())
    assert told.created == []


@EAGER
def test_eager_tasks_go_on_as_ever(native: Any, new_loop: NewLoop) -> None:
    """Their first step is taken while they are made, within another task's."""

    async def eager(future: Any) -> Any:
        current = asyncio.current_task()
        future.set_result(None)
        await asyncio.sleep(0)
        return current

    async def main() -> None:
        loop, this = asyncio.get_running_loop(), asyncio.current_task()
        future = loop.create_future()
        task: Any = asyncio.Task(eager(future), loop=loop, eager_start=True)  # type: ignore[call-arg]
        assert asyncio.current_task() is this
        assert told.created == [this, task]
        assert told.resolved == [future]
        assert told.of(task) == []
        assert await task is task
        assert asyncio.current_task() is this
        assert [step[0] for step in told.of(task)] == [None]

    told = Told(native)
    run(new_loop, main())


# -- futures that are resolved ---------------------------------------------------------------------------------------


def test_futures_are_told_that_a_step_resolves(native: Any, new_loop: NewLoop) -> None:
    done: list[bool] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        by_step, failed, by_callback, by_thread, by_task = [loop.create_future() for _ in range(5)]
        del told[:]
        by_step.set_result(1)
        failed.set_exception(ValueError("failed"))
        loop.call_soon(by_callback.set_result, 1)
        await by_callback
        thread = threading.Thread(target=by_thread.set_result, args=(1,))
        thread.start()
        thread.join(DEADLINE)
        await asyncio.create_task(resolves(by_task))
        assert told == [by_step, failed, by_task]
        assert done == [False] * 3
        assert isinstance(failed.exception(), ValueError)
        assert [future.result() for future in (by_step, by_callback, by_thread, by_task)] == [1] * 4

    async def resolves(future: Any) -> None:
        await asyncio.sleep(0)
        future.set_result(1)

    told: list[Any] = []

    def resolved(future: Any) -> None:
        told.append(future)
        done.append(future.done())

    assert native.observe_steps(None, 0, None, resolved)
    run(new_loop, main())


def test_what_is_done_already_stays_refused(native: Any, new_loop: NewLoop) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        future.set_result(1)
        for refused in (lambda: future.set_result(2), lambda: future.set_exception(ValueError())):
            with pytest.raises(asyncio.InvalidStateError):
                refused()
        with pytest.raises(TypeError):
            future.set_result()  # type: ignore[call-arg]
        assert future.result() == 1

    Told(native)
    run(new_loop, main())


# -- beginning and end -----------------------------------------------------------------------------------------------


_AT_CALL, _AT_INIT = 128, 296
"""Of tp_call and tp_init in a type, with 8 bytes a pointer."""


def made_specimens() -> tuple[Any, Any, Any, Any]:
    made = specimens.of_steps()
    assert made is not None
    return made


def functions() -> list[int]:
    """The addresses of all functions that are replaced."""
    future, task, step, wakeup = made_specimens()

    def read(address: int) -> int:
        return ctypes.c_size_t.from_address(address).value

    return [
        read(id(type(step)) + _AT_CALL),
        read(read(id(wakeup) + 16) + 8),
        read(id(type(task)) + _AT_INIT),
        read(id(OldTask) + _AT_INIT),
        *(read(read(id(vars(type(future))[name]) + 40) + 8) for name in ("set_result", "set_exception")),
        read(id(vars(type(task))["__init__"]) + 48),
    ]


def test_all_is_put_back(native: Any, new_loop: NewLoop) -> None:
    before = functions()
    told = Told(native)
    told.observe()
    observed = functions()
    told.steps.clear()
    told.created.clear()
    assert all(ours != original for ours, original in zip(observed, before, strict=True))
    run(new_loop, yields(1))
    assert len(told.steps) == 2
    native.leave_steps()
    native.leave_steps()
    assert functions() == before
    run(new_loop, yields(1))
    assert len(told.steps) == 2
    assert len(told.created) == 1


def test_what_others_have_put_there_meanwhile_stays(native: Any) -> None:
    """Theirs calls ours, whether anybody observes or not."""
    kind = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object)
    wakeup = made_specimens()[3]
    place = ctypes.c_size_t.from_address(ctypes.c_size_t.from_address(id(wakeup) + 16).value + 8)
    original = place.value
    calls = []

    async def main() -> tuple[Any, Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
        return asyncio.current_task(), future

    told = Told(native)
    below = kind(place.value)

    def call_below(task: Any, future: Any) -> Any:
        calls.append(future)
        return below(task, future)

    theirs = kind(call_below)
    place.value = address = ctypes.cast(theirs, ctypes.c_void_p).value or 0
    try:
        for observed in (True, False, True, False):
            if observed:
                told.observe()
            else:
                native.leave_steps()
            assert place.value == address
            task, future = run(asyncio.new_event_loop, main())
            assert [step[0] for step in told.of(task)] == ([None, future] if observed else [])
            assert calls.pop() is future
    finally:
        place.value = ctypes.cast(below, ctypes.c_void_p).value or 0
    # They put back what they found, which is ours.
    told.observe()
    native.leave_steps()
    assert place.value == original


def test_whoever_observes_may_change_within_a_step(native: Any, new_loop: NewLoop) -> None:
    first, second = Told(native), Told(native)

    async def main() -> Any:
        first.observe()
        await asyncio.sleep(0)
        second.observe()
        await asyncio.sleep(0)
        native.leave_steps()
        await asyncio.sleep(0)
        second.observe()
        asyncio.get_running_loop().create_future().set_result(None)  # nobody knew of this step when it began
        return asyncio.current_task()

    task = run(new_loop, main())
    assert (len(first.of(task)), len(second.of(task))) == (1, 1)
    assert second.resolved == []


def test_an_observer_may_end_itself(native: Any, new_loop: NewLoop) -> None:
    told = []

    def once(*step: object) -> None:
        native.leave_steps()
        told.append(step)

    native.observe_steps(once, 0, None, None)
    once_refers = sys.getrefcount(once)
    run(new_loop, yields(5))
    assert len(told) == 1
    assert sys.getrefcount(once) == once_refers - 1


def test_what_an_observer_does_is_not_told(native: Any, new_loop: NewLoop) -> None:
    """It would never end."""
    loop = new_loop()

    def again(future: Any, *_: object) -> None:
        told.append(future)
        loop.create_future().set_result(None)
        asyncio.Task(yields(0), loop=loop)

    async def main() -> Any:
        future = loop.create_future()
        future.set_result(None)
        await asyncio.sleep(0)
        return future

    told: list[Any] = []
    native.observe_steps(None, 0, again, again)
    try:
        future = loop.run_until_complete(main())
    finally:
        native.leave_steps()
        loop.run_until_complete(yields(1))
        loop.close()
    assert told[1:] == [future]


# -- what observers raise --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, RecursionError])
def test_what_an_observer_raises_harms_nobody(native: Any, new_loop: NewLoop, error: type[BaseException]) -> None:
    reported = []

    def raises(*_: object) -> None:
        raise error

    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError("the task's own")

    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        future = loop.create_future()
        future.set_result("result")
        with pytest.raises(LookupError, match="the task's own"):
            await asyncio.create_task(fails())
        return await future  # type: ignore[no-any-return]

    assert native.observe_steps(raises, 0, raises, raises)
    before = native.step_failures()
    assert run(new_loop, main()) == "result"
    # Two tasks, one future, and of each task two steps.
    assert native.step_failures() - before == 2 + 1 + 2 + 2
    assert reported == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["stepped", "created", "resolved"])
def test_an_interrupt_that_reaches_an_observer_is_the_programs(
    native: Any, new_loop: NewLoop, error: type[BaseException], where: str
) -> None:
    """A signal's handler runs wherever Python does."""
    reached = []

    def interrupted(*_: object) -> None:
        native.leave_steps()
        raise error("at once")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        native.observe_steps(None, 0, None, None)
        await asyncio.sleep(0)
        interrupts = [interrupted if where == name else None for name in ("stepped", "created", "resolved")]
        native.observe_steps(interrupts[0], 0, *interrupts[1:])
        future = loop.create_future()
        task = None
        try:
            task = loop.create_task(yields(0))
            future.set_result(None)
        except error:
            reached.append(where)
            assert task is None or not future.done()
            raise
        await asyncio.sleep(0)

    before = native.step_failures()
    loop = new_loop()
    try:
        with pytest.raises(error, match="at once"):
            loop.run_until_complete(main())
        assert reached == ([] if where == "stepped" else [where])
        with contextlib.suppress(RuntimeError):  # uvloop stops once more after an interrupt, observed or not
            loop.run_until_complete(yields(3))
        loop.run_until_complete(yields(3))
        assert not asyncio.all_tasks(loop)
    finally:
        loop.close()
    assert native.step_failures() == before


@pytest.mark.parametrize("raising", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_a_step_raises_goes_on(native: Any, new_loop: NewLoop, error: type[BaseException], raising: bool) -> None:
    raised = error("the step's")

    async def main() -> None:
        await asyncio.sleep(0)
        raise raised

    def stepped(*step: object) -> None:
        steps.append(step)
        if raising:
            raise KeyboardInterrupt if len(steps) == 2 else ValueError

    steps: list[Any] = []
    native.observe_steps(stepped, 0, None, None)
    with pytest.raises(error) as reached:
        run(new_loop, main())
    assert reached.value is raised
    assert raised.__context__ is None
    assert len(steps) == 2


def test_tasks_end_as_ever(native: Any, new_loop: NewLoop) -> None:
    error = ValueError("one")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise error

    async def hangs() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        failing, hanging, good = map(loop.create_task, (fails(), hangs(), yields(3)))
        never = loop.create_task(hangs())
        never.cancel()
        await asyncio.sleep(0)
        hanging.cancel("message")
        await asyncio.wait([failing, hanging, good, never])
        assert failing.exception() is error
        assert hanging.cancelled()
        assert never.cancelled()
        assert good.result() == 3

    told = Told(native)
    run(new_loop, main())
    assert len(told.created) == 5


# -- several at once -------------------------------------------------------------------------------------------------


def in_threads(count: int, new_loop: NewLoop, make: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
    """What the coroutines return, each run in a loop of a thread of its own."""
    returned: list[Any] = []
    together = threading.Barrier(count)

    def work() -> None:
        together.wait(DEADLINE)
        returned.append(run(new_loop, make()))

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(returned) == count
    return returned


@pytest.fixture
def _switching() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_switching")
def test_loops_of_several_threads_do_not_mix(native: Any, new_loop: NewLoop) -> None:
    steps: dict[Any, int] = {}
    futures: dict[Any, int] = {}

    def stepped(task: Any, _future: Any, began: int, ended: int) -> None:
        assert asyncio.get_running_loop() is task.get_loop()
        assert 0 < began <= ended
        steps[task] = steps.get(task, 0) + 1

    def resolved(future: Any) -> None:
        assert asyncio.get_running_loop() is future.get_loop()
        futures[future] = futures.get(future, 0) + 1

    async def one() -> Any:
        future = asyncio.get_running_loop().create_future()
        await yields(10)
        future.set_result(None)
        return asyncio.current_task(), future

    async def main() -> list[Any]:
        return await asyncio.gather(*(one() for _ in range(200)))

    before = native.step_failures()
    assert native.observe_steps(stepped, 0, None, resolved)
    for results in in_threads(2, new_loop, main):
        for task, future in results:
            assert steps[task] == 11
            assert futures[future] == 1
    assert native.step_failures() == before


@pytest.mark.usefixtures("_switching")
@pytest.mark.parametrize("leaves", [False, True])
def test_observers_may_be_exchanged_at_any_time(native: Any, new_loop: NewLoop, leaves: bool) -> None:
    observers = [Told(native), Told(native)]
    before, done = native.step_failures(), threading.Event()
    returned = []

    async def main() -> list[int]:
        return await asyncio.gather(*(yields(30) for _ in range(100)))

    def work() -> None:
        returned.extend(in_threads(2, new_loop, main))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.wait(0):
        for told in observers:
            if leaves:
                native.leave_steps()
            told.observe()
    thread.join(DEADLINE)
    assert returned == [[30] * 100] * 2
    assert native.step_failures() == before
    tasks = set(observers[0].created) | set(observers[1].created)
    found = sum(len(told.of(task)) for told in observers for task in tasks if task.get_coro().__name__ == "yields")
    assert found <= 2 * 100 * 31
    if not leaves:
        assert found == 2 * 100 * 31


# -- nothing stays ---------------------------------------------------------------------------------------------------


def test_nothing_is_kept(native: Any, new_loop: NewLoop) -> None:
    """Each is as often referred to afterwards as before, and goes when it went without."""
    counts = []

    class Future(asyncio.Future[Any]):
        pass

    async def waits(future: Any) -> None:
        counts.append(sys.getrefcount(future))
        await future

    async def main() -> list[weakref.ref[Any]]:
        future = Future(loop=asyncio.get_running_loop())
        task = asyncio.create_task(waits(future))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(future.set_result, None)
        await task
        await asyncio.sleep(0)
        counts.extend(map(sys.getrefcount, (future, task)))
        return [weakref.ref(future), weakref.ref(task)]

    def observer(*_: object) -> object:
        return answer

    found = []
    answer = object()
    held, answered = sys.getrefcount(observer), sys.getrefcount(answer)
    for observed in (False, True):
        if observed:
            native.observe_steps(observer, 0, observer, observer)
            native.observe_steps(observer, 0, observer, observer)
            assert sys.getrefcount(observer) == held + 3
        assert [reference() for reference in run(new_loop, main())] == [None, None]
        found.append(counts[:])
        counts.clear()
    assert found[0] == found[1]
    native.leave_steps()
    assert (sys.getrefcount(observer), sys.getrefcount(answer)) == (held, answered)


def test_memory_does_not_grow(native: Any, new_loop: NewLoop) -> None:
    calls = [0]

    def stepped(*_: object) -> None:
        calls[0] += 1
        if calls[0] % 3 == 0:
            raise ValueError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(3_000):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future
            await asyncio.create_task(yields(1))
            loop.create_future().set_exception(KeyError("of nobody"))

    sizes = []
    loop = new_loop()
    loop.set_exception_handler(lambda *_: None)
    for _ in range(4):
        native.observe_steps(stepped, 0, stepped, stepped)
        loop.run_until_complete(main())
        native.leave_steps()
        sizes.append(sys.getallocatedblocks())
    loop.close()
    assert sizes[-1] - sizes[1] < 500, sizes


def test_finding_out_leaves_no_trace(need_native: Callable[[], None], run_python: RunPython) -> None:
    need_native()
    ran = run_python(
        """
import asyncio, gc, sys
from profiling_middleware.sampling import _native

made = []

async def main():
    before = asyncio.all_tasks()
    assert _native.observe_steps(lambda *step: None, 0, made.append, None)
    assert asyncio.all_tasks() == before == {asyncio.current_task()}
    every = getattr(asyncio.tasks, "_scheduled_tasks", None) or asyncio.tasks._all_tasks
    assert len(every) == 1, list(every)
    assert list(asyncio.tasks._current_tasks) == [asyncio.get_running_loop()]
    assert made == []
    # Tasks are numbered.
    assert (asyncio.current_task().get_name(), asyncio.create_task(main2()).get_name()) == ("Task-1", "Task-2")

async def main2():
    pass

gc.disable()
asyncio.run(main(), debug=True)
assert not [one for one in gc.get_objects() if type(one).__name__ == "_Loop"]
gc.collect()
print("ran")
""",
        options=("-X", "dev"),
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("ran\n", "", 0)


def test_what_is_not_known_is_left_alone(need_native: Callable[[], None], run_python: RunPython) -> None:
    """No asyncio, one whose tasks or futures are Python's or go on otherwise, and one that is no asyncio at all."""
    need_native()
    ran = run_python(
        """
import gc, sys, types
from profiling_middleware.sampling import _native

def observe():
    return _native.observe_steps(lambda *step: None, 0, None, None)

assert "asyncio" not in sys.modules and not observe()
import asyncio
real = sys.modules["_asyncio"]
python = types.ModuleType("_asyncio")
python.Future, python.Task = asyncio.futures._PyFuture, asyncio.tasks._PyTask
python._unregister_task = asyncio.tasks._py_unregister_task
mixed = types.ModuleType("_asyncio")
mixed.Future, mixed.Task = asyncio.futures._PyFuture, real.Task
mixed._unregister_task = real._unregister_task

def other_steps(waiting, *, loop, name):
    call_soon = loop.call_soon
    loop.call_soon = lambda step, *arguments, context: call_soon(lambda *woken_by: step(*woken_by))
    return real.Task(waiting, loop=loop, name=name)

other = types.ModuleType("_asyncio")
other.Future, other.Task, other._unregister_task = real.Future, other_steps, real._unregister_task
nothing, strange = types.ModuleType("_asyncio"), types.SimpleNamespace(Future=lambda loop: 1, Task=print)
for module in (python, mixed, other, nothing, strange):
    sys.modules["_asyncio"] = module
    assert not observe()
    gc.collect()
sys.modules["_asyncio"] = real
assert observe()
print("ran")
""",
        options=("-X", "dev"),
    )
    assert (ran.stdout.splitlines()[-1], ran.stderr, ran.returncode) == ("ran", "", 0)


def test_other_interpreters_are_left_alone(need_native: Callable[[], None], run_python: RunPython) -> None:
    """What all share, and what each has of its own."""
    need_native()
    ran = run_python(
        """
import asyncio, sys
from profiling_middleware.sampling import _native
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
told = []
assert _native.observe_steps(lambda *step: told.append(step), 0, told.append, told.append)
program = '''
import asyncio
async def main():
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await future
    asyncio.get_running_loop().create_future().set_result(None)
    await asyncio.create_task(asyncio.sleep(0))
asyncio.run(main())
print("run", flush=True)
'''
def run():
    failed = interpreters.run_string(interpreters.create(), program)
    assert failed is None, failed
run()
assert told == [], told
async def main():
    told.clear()
    run()
    assert told == [], told
# Within a loop 3.11 runs no other interpreter's either, and 3.12.1 crashes then, observed or not.
if sys.version_info >= (3, 13):
    asyncio.run(main())
else:
    print("run")
asyncio.run(asyncio.sleep(0))
assert told
print("ran")
"""
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("run\nrun\nran\n", "", 0)
