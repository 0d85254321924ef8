"""What real loops do, step by step: with the extension's hooks, on uvloop with them, and on asyncio without."""

from __future__ import annotations

import asyncio
import functools
import itertools
import sys
import threading
import time
from typing import Any

import pytest
import uvloop
from tracing_kit import routed, spin, taken

from profiling_middleware.trace_events import AwaitEvent, StepEvent, TaskEvent
from profiling_middleware.tracing import steps
from profiling_middleware.tracing.buffer import TraceBuffer
from profiling_middleware.tracing.requests import RequestSpans
from profiling_middleware.tracing.steps import LEAST_STEP_NS, LoopSteps

Way = Any
"""See conftest."""
HANDLE_RUN: Any = asyncio.Handle._run


def of_tasks(buffer: TraceBuffer) -> list[StepEvent]:
    """Steps of tasks alone."""
    return [step for step in taken(buffer, StepEvent) if step.task]


def of_callbacks(buffer: TraceBuffer) -> list[StepEvent]:
    return [step for step in taken(buffer, StepEvent) if not step.task]


# -- steps of tasks --------------------------------------------------------------------------------------------------


def test_in_full_each_step_is_told_with_its_times(way: Way, buffer: TraceBuffer) -> None:
    readings = []

    async def main() -> None:
        asyncio.current_task().set_name("the main one")  # type: ignore[union-attr]
        for _ in range(20):
            readings.append(spin(20_000))
            await asyncio.sleep(0)

    way.steps.start(buffer, full=True)
    way.run(main())
    told = of_tasks(buffer)
    # At its end it goes on for a moment.
    assert len(told) == len(readings) + 1
    for step, (first, last) in zip(told, readings, strict=False):
        assert step.began_ns <= first <= last <= step.ended_ns
        assert (step.name.rsplit(".")[-1], step.task, step.tid) == ("main", "the main one", threading.get_native_id())
    assert all(one.ended_ns <= other.began_ns for one, other in itertools.pairwise(told))


def test_else_steps_that_are_long_enough_are_told(way: Way, buffer: TraceBuffer) -> None:
    async def main() -> tuple[int, int]:
        for _ in range(100):
            await asyncio.sleep(0)
        reading = spin(LEAST_STEP_NS)
        for _ in range(100):
            await asyncio.sleep(0)
        return reading

    way.steps.start(buffer, full=False)
    first, last = way.run(main())
    told = of_tasks(buffer)
    assert sum(step.began_ns <= first <= last <= step.ended_ns for step in told) == 1
    # A loaded machine may make others as long.
    assert all(step.ended_ns - step.began_ns >= LEAST_STEP_NS for step in told)
    assert len(told) < 50
    assert all((step.woken_by, step.wakes) == (0, ()) for step in told)
    assert taken(buffer, TaskEvent) == taken(buffer, AwaitEvent) == []


def test_steps_tell_for_which_request_they_are(way: Way, buffer: TraceBuffer) -> None:
    spans = RequestSpans()

    async def serves() -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        tokens = [spans.enter(spans.begin(routed, {}))]
        inherits = asyncio.create_task(serves(), name="of the first")
        tokens.append(spans.enter(spans.begin(routed, {})))
        await asyncio.create_task(serves(), name="of the second")
        await inherits
        for token in reversed(tokens):
            token.var.reset(token)
        await asyncio.create_task(serves(), name="of none")

    way.steps.start(buffer, full=True)
    way.run(main())
    told = taken(buffer)
    requests = {event.task: event.request for event in told if isinstance(event, StepEvent)}
    assert {name: requests[name] for name in requests if name.startswith("of")} == {
        "of the first": 1,
        "of the second": 2,
        "of none": 0,
    }
    lives = {event.name: event.request for event in told if isinstance(event, TaskEvent)}
    assert {name: lives[name] for name in requests if name.startswith("of")} == {
        "of the first": 1,
        "of the second": 2,
        "of none": 0,
    }


def test_detail_may_change_at_any_time(way: Way, buffer: TraceBuffer) -> None:
    """Up and down, while a loop runs."""

    async def main() -> list[int]:
        counts = []
        for full in (None, True, False, True, False, None):
            if full is None:
                way.steps.stop()
            else:
                way.steps.start(buffer, full=full)
            await asyncio.sleep(0)
            taken(buffer)
            for _ in range(50):
                await asyncio.sleep(0)
            counts.append(len(of_tasks(buffer)))
        return counts

    counts = way.run(main())
    # Those that are told without being asked for took a millisecond.
    assert [count if count < 25 else 50 for count in counts] == [0, 50, counts[2], 50, counts[4], 0]


def test_loops_go_on_as_ever(way: Way, buffer: TraceBuffer) -> None:
    reported: list[dict[str, Any]] = []
    error = LookupError("the task's own")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise error

    async def hangs() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        loop.call_soon(raises)
        failing, hanging = loop.create_task(fails()), loop.create_task(hangs())
        await asyncio.sleep(0)
        hanging.cancel("message")
        await asyncio.wait([failing, hanging])
        assert failing.exception() is error
        assert hanging.cancelled()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await hangs()
        assert await asyncio.gather(asyncio.sleep(0, "a"), asyncio.sleep(0, "b")) == ["a", "b"]
        return "done"

    def raises() -> None:
        raise ValueError("the callback's own")

    for full in (True, False):
        way.steps.start(buffer, full=full)
        assert way.run(main()) == "done"
    assert [str(context["exception"]) for context in reported] == ["the callback's own"] * 2
    assert way.steps.failures.count == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_goes_through(error: type[BaseException], way: Way, buffer: TraceBuffer) -> None:
    async def main() -> None:
        raise error("at once")

    def callback() -> None:
        raise error("at once")

    way.steps.start(buffer, full=True)
    with pytest.raises(error, match="at once"):
        way.run(main())
    loop = way.new_loop()
    loop.call_soon(callback)
    with pytest.raises(error, match="at once"):
        loop.run_forever()
    loop.close()


def test_all_is_put_back_and_nothing_more_is_told(way: Way, buffer: TraceBuffer) -> None:
    async def main() -> None:
        await asyncio.create_task(asyncio.sleep(0))
        spin(LEAST_STEP_NS)

    for _ in range(2):
        for full in (True, False, True):
            way.steps.start(buffer, full=full)
        assert asyncio.Handle._run is not HANDLE_RUN
        way.run(main())
        assert taken(buffer)
        way.steps.stop()
        way.steps.stop()
        assert asyncio.Handle._run is HANDLE_RUN
        way.run(main())
        assert taken(buffer) == []


def test_it_may_be_stopped_within_a_step(way: Way, buffer: TraceBuffer) -> None:
    async def main() -> None:
        await asyncio.sleep(0)
        way.steps.stop()
        taken(buffer)
        await asyncio.create_task(asyncio.sleep(0))

    way.steps.start(buffer, full=True)
    way.run(main())
    assert taken(buffer) == []


@pytest.mark.parametrize("again", [False, True])
def test_what_others_have_put_there_meanwhile_stays(again: bool, buffer: TraceBuffer, unhooked: Way) -> None:
    """Theirs calls ours, and ours the original, untold; when it starts again each step is told once."""
    calls: list[Any] = []
    way = unhooked
    way.steps.start(buffer, full=True)
    ours = asyncio.Handle._run  # type: ignore[attr-defined]

    def theirs(handle: Any) -> None:
        calls.append(handle)
        ours(handle)

    async def main() -> None:
        await asyncio.sleep(0)
        spin(LEAST_STEP_NS)

    asyncio.Handle._run = theirs  # type: ignore[attr-defined]
    try:
        way.steps.stop()
        assert asyncio.Handle._run is theirs  # type: ignore[attr-defined]
        if again:
            way.steps.start(buffer, full=True)
        way.run(main())
        assert len(calls) >= 2
        assert len(of_tasks(buffer)) == 2 * again
        way.steps.stop()
        assert asyncio.Handle._run is theirs  # type: ignore[attr-defined]
    finally:
        asyncio.Handle._run = HANDLE_RUN  # type: ignore[attr-defined]


# -- callbacks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hooks", [True, False])
def test_callbacks_are_told_with_their_times(hooks: bool, request: pytest.FixtureRequest, buffer: TraceBuffer) -> None:
    way = request.getfixturevalue("hooked" if hooks else "unhooked")
    spans, readings = RequestSpans(), []

    def callback(nanoseconds: int) -> None:
        readings.append(spin(nanoseconds))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        token = spans.enter(spans.begin(routed, {}))
        loop.call_soon(callback, 1_500_000)
        token.var.reset(token)
        done = loop.create_future()
        loop.call_later(0.001, functools.partial(callback, 1_500_000))
        loop.call_later(0.02, done.set_result, None)
        await done

    for full in (True, False):
        way.steps.start(buffer, full=full)
        way.run(main())
    told = [step for step in of_callbacks(buffer) if step.name.endswith("callback")]
    names = [(step.name.rsplit(".")[-1], step.request) for step in told]
    assert names == [("callback", 1), ("callback", 0), ("callback", 2), ("callback", 0)]
    for step, (first, last) in zip(told, readings, strict=True):
        assert step.began_ns <= first <= last <= step.ended_ns
        assert (step.tid, step.woken_by, step.wakes) == (threading.get_native_id(), 0, ())


def test_short_callbacks_are_not_told(buffer: TraceBuffer, unhooked: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        for _ in range(50):
            asyncio.get_running_loop().call_soon(int)
            await asyncio.sleep(0)

    monkeypatch.setattr(steps, "_LEAST_CALLBACK_NS", 10**15)
    unhooked.steps.start(buffer, full=True)
    unhooked.run(main())
    assert of_callbacks(buffer) == []
    monkeypatch.setattr(steps, "_LEAST_CALLBACK_NS", 0)
    unhooked.steps.start(buffer, full=False)
    unhooked.steps.start(buffer, full=True)
    unhooked.run(main())
    assert sum(step.name == "int" for step in of_callbacks(buffer)) == 50


def test_a_callback_that_cannot_be_told_is_counted(buffer: TraceBuffer, unhooked: Way) -> None:
    class Strange:
        def __getattr__(self, name: str) -> str:
            raise OSError(f"no {name}")

        def __call__(self) -> None:
            ran.append(1)
            spin(LEAST_STEP_NS)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(Strange())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    ran: list[int] = []
    unhooked.steps.start(buffer, full=False)
    unhooked.run(main())
    assert (ran, unhooked.steps.failures.count) == ([1], 1)


def test_a_callback_that_cancels_itself_is_no_problem(buffer: TraceBuffer, unhooked: Way) -> None:
    handles: list[asyncio.Handle] = []

    def callback() -> None:
        handles[0].cancel()
        spin(LEAST_STEP_NS)

    async def main() -> None:
        handles.append(asyncio.get_running_loop().call_soon(callback))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    unhooked.steps.start(buffer, full=True)
    unhooked.run(main())
    assert unhooked.steps.failures.count == 0


# -- with the hooks and without --------------------------------------------------------------------------------------


class Refuses:
    """Hooks that do not understand this interpreter's asyncio."""

    def __init__(self) -> None:
        self.left = 0

    def observe_steps(self, *_: object) -> bool:
        return False

    def leave_steps(self) -> None:
        self.left += 1


def test_hooks_that_do_not_understand_asyncio_are_done_without(buffer: TraceBuffer, unhooked: Way) -> None:
    hooks = Refuses()
    loop_steps = LoopSteps(lambda: hooks)
    loop_steps.start(buffer, full=True)
    try:
        unhooked.run(asyncio.sleep(0))
        assert len(of_tasks(buffer)) == 2
        assert loop_steps.limits == ("without the extension steps of tasks are not seen on uvloop",)
    finally:
        loop_steps.stop()
    assert hooks.left == 1
    assert loop_steps.limits == ()


def test_what_is_not_seen_on_uvloop_is_said(way: Way, buffer: TraceBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert way.steps.limits == ()
    way.steps.start(buffer, full=False)
    if way.hooked:
        assert way.steps.limits == ()
        return
    assert way.steps.limits == ("without the extension steps of tasks are not seen on uvloop",)
    loop = uvloop.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert taken(buffer) == []
    monkeypatch.delitem(sys.modules, "uvloop")
    assert way.steps.limits == ()


def test_hooks_are_looked_for_when_they_are_needed(buffer: TraceBuffer, run_python: Any) -> None:
    """And a service without asyncio is not made to load it."""
    ran = run_python(
        """
import sys
from profiling_middleware.tracing.buffer import TraceBuffer, events_of
from profiling_middleware.tracing.steps import LoopSteps
asyncio = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("asyncio")}
buffer, asked = TraceBuffer(), []
steps = LoopSteps(lambda: asked.append(1))
steps.start(buffer, full=True)
steps.stop()
assert "asyncio" not in sys.modules and not asked
sys.modules.update(asyncio)
import asyncio
steps.start(buffer, full=True)
steps.start(buffer, full=False)
steps.start(buffer, full=True)
assert asked == [1]
asyncio.run(asyncio.sleep(0))
print(len([event for event in events_of(buffer.fetch()) if event[3] == "sleep"]))
steps.stop()
"""
    )
    assert (ran.stderr, ran.returncode) == ("", 0)
    assert int(ran.stdout) == 2


def test_a_thread_is_not_taken_for_the_one_that_had_its_place(way: Way, buffer: TraceBuffer, deadline: float) -> None:
    """The C library gives a new thread the stack of one that has ended, and with it what Python calls it by."""
    threads: list[tuple[int, int]] = []

    async def main() -> None:
        threads.append((threading.get_ident(), threading.get_native_id()))

    way.steps.start(buffer, full=True)
    for _ in range(3):
        thread = threading.Thread(target=way.run, args=(main(),))
        thread.start()
        thread.join(deadline)
    told = of_tasks(buffer)
    assert [step.tid for step in told] == [tid for _, tid in threads]
    if sys.platform == "linux":
        assert len({ident for ident, _ in threads}) < len({tid for _, tid in threads}) == 3


def test_several_loops_at_once_do_not_mix(way: Way, buffer: TraceBuffer, deadline: float) -> None:
    together = threading.Barrier(3)
    tids: dict[str, int] = {}

    async def main(name: str) -> None:
        asyncio.current_task().set_name(name)  # type: ignore[union-attr]
        for _ in range(100):
            await asyncio.create_task(asyncio.sleep(0), name=name)

    def work(name: str) -> None:
        tids[name] = threading.get_native_id()
        together.wait(deadline)
        way.run(main(name))

    way.steps.start(buffer, full=True)
    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(deadline)
    finally:
        sys.setswitchinterval(interval)
    told = of_tasks(buffer)
    woken = {step.woken_by: step.task for step in told if step.woken_by}
    for step in told:
        assert step.tid == tids[step.task]
        assert {woken.get(number, step.task) for number in step.wakes} <= {step.task}
    assert len(told) == 3 * (101 + 200)
    assert way.steps.failures.count == 0


def test_own_readings_are_within_the_steps_of_a_busy_loop(way: Way, buffer: TraceBuffer) -> None:
    """Many tasks at once: no step has a part of another one's time."""
    readings: dict[str, list[tuple[int, int]]] = {}

    async def works(name: str) -> None:
        for _ in range(5):
            first = time.monotonic_ns()
            sum(range(2_000))
            readings.setdefault(name, []).append((first, time.monotonic_ns()))
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(asyncio.create_task(works(f"{n}"), name=f"{n}") for n in range(30)))

    way.steps.start(buffer, full=True)
    way.run(main())
    told = sorted(of_tasks(buffer), key=lambda step: step.began_ns)
    assert all(one.ended_ns <= other.began_ns for one, other in itertools.pairwise(told))
    for name, expected in readings.items():
        steps_of = [step for step in told if step.task == name]
        assert len(steps_of) == 6
        for step, (first, last) in zip(steps_of, expected, strict=False):
            assert step.began_ns <= first <= last <= step.ended_ns
