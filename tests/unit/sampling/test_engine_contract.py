"""What every engine promises: what it hands out is what the threads' own clocks say."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref

import pytest
from engine_kit import DEADLINE, Heard, Worker, burn, look_until

from profiling_middleware.model import Frame
from profiling_middleware.sampling.engine import Engine

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="exact only with Linux's clocks")


# What is seen from outside may be missed at the end: a look that is late on a busy machine.
_LEEWAY_NS = {"native": 20_000_000, "polling": 60_000_000, "python": 10_000_000}


def test_a_thread_gets_the_cpu_time_its_own_clock_says(engine: Engine) -> None:
    heard, worker = Heard(), Worker("burner", lambda: burn(0.3))
    try:
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
    finally:
        worker.join()

    assert heard.cpu_ns("burner") == pytest.approx(worker.used, rel=0.02, abs=2_000_000)


def test_work_is_seen_in_the_function_that_does_it(engine: Engine) -> None:
    heard, worker = Heard(), Worker("burner", lambda: burn(0.3))
    try:
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
    finally:
        worker.join()

    assert heard.cpu_ns("burner", ".burn") >= 0.9 * worker.used


def test_two_threads_share_the_time_as_their_clocks_say(engine: Engine) -> None:
    heard, much, little = Heard(), Worker("much", lambda: burn(0.3)), Worker("little", lambda: burn(0.1))
    try:
        engine.attach(heard)
        much.begin.set()
        little.begin.set()
        look_until(engine, much.done)
        assert little.done.wait(DEADLINE)
        engine.detach(heard)
    finally:
        much.join()
        little.join()

    assert heard.cpu_ns("much") == pytest.approx(much.used, rel=0.02, abs=2_000_000)
    assert heard.cpu_ns("little") == pytest.approx(little.used, rel=0.02, abs=2_000_000)


def test_all_cpu_time_of_the_process_is_handed_out(engine: Engine) -> None:
    heard, worker = Heard(), Worker("burner", lambda: burn(0.2))
    try:
        before = time.process_time_ns()
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
        used = time.process_time_ns() - before
    finally:
        worker.join()

    assert heard.cpu_ns() == pytest.approx(used, rel=0.03, abs=3_000_000)


def test_a_thread_that_waits_has_wall_time_where_it_waits_and_no_cpu_time(engine: Engine) -> None:
    heard, sleeper, burner = (
        Heard(wants_waits=True),
        Worker("sleeper", lambda: None),
        Worker("burner", lambda: burn(0.15)),
    )
    try:
        sleeper.begin.set()
        assert sleeper.done.wait(DEADLINE)
        engine.attach(heard)
        before = time.monotonic_ns()
        burner.begin.set()
        look_until(engine, burner.done)
        engine.detach(heard)
        passed = time.monotonic_ns() - before
    finally:
        sleeper.join()
        burner.join()

    assert heard.wall_ns("sleeper", ".waits_for_the_end") == pytest.approx(passed, rel=0.05, abs=20_000_000)
    assert heard.cpu_ns("sleeper") < 2_000_000


def test_the_wall_time_of_a_thread_is_the_time_that_passed(engine: Engine) -> None:
    heard, worker = Heard(wants_waits=True), Worker("burner", lambda: burn(0.2))
    try:
        before = time.monotonic_ns()
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
        passed = time.monotonic_ns() - before
    finally:
        worker.join()

    assert heard.wall_ns("burner") == pytest.approx(passed, rel=0.05, abs=20_000_000)


def test_the_wall_time_of_a_thread_that_works_and_waits_in_turn_is_the_time_that_passed(engine: Engine) -> None:
    pause = threading.Event()

    def in_turn() -> None:
        for _ in range(15):
            burn(0.005)
            pause.wait(0.01)

    heard, worker = Heard(wants_waits=True), Worker("burner", in_turn)
    try:
        before = time.monotonic_ns()
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
        passed = time.monotonic_ns() - before
    finally:
        worker.join()

    assert heard.wall_ns("burner") == pytest.approx(passed, rel=0.02, abs=_LEEWAY_NS[engine.name])
    assert heard.cpu_ns("burner") == pytest.approx(worker.used, rel=0.02, abs=_LEEWAY_NS[engine.name])


def test_what_happened_before_a_listener_came_is_not_its_business(engine: Engine) -> None:
    first, second = Heard(), Heard()
    before, after = Worker("before", lambda: burn(0.1)), Worker("after", lambda: burn(0.1))
    try:
        engine.attach(first)
        before.begin.set()
        look_until(engine, before.done)
        engine.attach(second)
        after.begin.set()
        look_until(engine, after.done)
        engine.detach(first)
        engine.detach(second)
    finally:
        before.join()
        after.join()

    assert first.cpu_ns("before") == pytest.approx(before.used, rel=0.03, abs=3_000_000)
    assert first.cpu_ns("after") == pytest.approx(after.used, rel=0.03, abs=3_000_000)
    assert second.cpu_ns("before") < 3_000_000
    assert second.cpu_ns("after") == pytest.approx(after.used, rel=0.03, abs=3_000_000)


def test_what_was_not_handed_out_yet_goes_to_those_who_listened_then(engine: Engine) -> None:
    first, second = Heard(), Heard()
    worker = Worker("burner", lambda: burn(0.05))
    try:
        engine.attach(first)
        worker.begin.set()
        assert worker.done.wait(DEADLINE)
        engine.attach(second)
        engine.detach(first)
        engine.detach(second)
    finally:
        worker.join()

    assert first.cpu_ns("burner") == pytest.approx(worker.used, rel=0.03, abs=3_000_000)
    assert second.cpu_ns("burner") < 3_000_000


def test_a_listener_that_has_left_hears_nothing_more(engine: Engine) -> None:
    stays, leaves, worker = Heard(), Heard(), Worker("burner", lambda: burn(0.1))
    try:
        engine.attach(stays)
        engine.attach(leaves)
        engine.detach(leaves)
        engine.detach(leaves)
        count = len(leaves.samples)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(stays)
    finally:
        worker.join()

    assert len(leaves.samples) == count
    assert stays.cpu_ns("burner") > 50_000_000


def test_a_second_capture_after_the_first_begins_from_nothing(engine: Engine) -> None:
    first, second = Heard(), Heard()
    one, other = Worker("one", lambda: burn(0.1)), Worker("other", lambda: burn(0.1))
    try:
        engine.attach(first)
        one.begin.set()
        look_until(engine, one.done)
        engine.detach(first)
        burn(0.05)
        engine.attach(second)
        other.begin.set()
        look_until(engine, other.done)
        engine.detach(second)
    finally:
        one.join()
        other.join()

    assert second.cpu_ns("one") < 3_000_000
    assert second.cpu_ns("other") == pytest.approx(other.used, rel=0.03, abs=3_000_000)
    assert second.cpu_ns() < 150_000_000


def test_a_thread_that_came_during_the_capture_is_found_with_what_it_used(engine: Engine) -> None:
    heard = Heard()
    engine.attach(heard)
    engine.look()
    late = Worker("latecomer", lambda: burn(0.1))
    try:
        late.begin.set()
        look_until(engine, late.done)
        engine.detach(heard)
    finally:
        late.join()

    assert heard.cpu_ns("latecomer") == pytest.approx(late.used, rel=0.03, abs=3_000_000)


def test_no_descriptor_stays_open_when_nobody_listens(engine: Engine) -> None:
    worker = Worker("burner", lambda: burn(0.05))
    try:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing opens one itself either way
        heard = Heard()
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
        after = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    finally:
        worker.join()

    assert after == before


def test_however_many_threads_there_are_the_service_keeps_its_descriptors(engine: Engine) -> None:
    """1,024 are what a process usually may have, and they are meant for its connections."""
    workers = [Worker(f"w{number}", lambda: burn(0.002)) for number in range(200)]
    try:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        engine.attach(heard := Heard())
        for worker in workers:
            worker.begin.set()
        for worker in workers:
            look_until(engine, worker.done)
        during = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        engine.detach(heard)
    finally:
        for worker in workers:
            worker.join()

    assert during - before <= 140


def test_no_frame_is_kept_alive_by_a_look(engine: Engine) -> None:
    class Held:
        """What a function of the service holds."""

    gone: list[weakref.ref[Held]] = []

    def hold() -> None:
        held = Held()
        gone.append(weakref.ref(held))
        burn(0.05)

    heard, worker = Heard(), Worker("holder", hold)
    try:
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        assert gone[0]() is None
        engine.detach(heard)
    finally:
        worker.join()


def test_the_rate_that_is_asked_for_is_used_while_it_costs_little(engine: Engine) -> None:
    assert (engine.rate, engine.rate_used) == (100, pytest.approx(100))


def test_a_look_says_when_the_next_one_is_due(engine: Engine) -> None:
    engine.attach(heard := Heard())
    pauses = [engine.look() for _ in range(3)]
    engine.detach(heard)

    assert all(0 < pause <= 5 for pause in pauses)


def test_nothing_that_is_handed_out_is_negative_or_from_another_time(engine: Engine) -> None:
    pause = threading.Event()

    def in_turn() -> None:
        for _ in range(20):
            burn(0.003)
            pause.wait(0.003)

    heard, worker = Heard(wants_waits=True), Worker("burner", in_turn)
    try:
        before = time.monotonic_ns()
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
        after = time.monotonic_ns()
    finally:
        worker.join()

    assert heard.samples
    assert all(sample.cpu_ns >= 0 and sample.wall_ns >= 0 for sample in heard.samples)
    assert all(before <= sample.time_ns <= after for sample in heard.samples)
    assert all(sample.stack.frames for sample in heard.samples)


def test_equal_stacks_are_the_same_object(engine: Engine) -> None:
    """Captures add up by identity."""
    heard, worker = Heard(wants_waits=True), Worker("burner", lambda: burn(0.1))
    try:
        engine.attach(heard)
        worker.begin.set()
        look_until(engine, worker.done)
        engine.detach(heard)
    finally:
        worker.join()

    stacks = {
        id(sample.stack): sample.stack.frames for sample in heard.samples if not _has_special(sample.stack.frames)
    }
    assert len(set(stacks.values())) == len(stacks)
    threads = {sample.thread for sample in heard.samples if sample.thread.name == "burner"}
    assert len(threads) == 1


def _has_special(frames: tuple[Frame, ...]) -> bool:
    return any(frame.function.startswith("<") for frame in frames)


def test_a_look_without_a_listener_and_a_second_close_are_harmless(engine: Engine) -> None:
    engine.attach(heard := Heard())
    engine.detach(heard)
    engine.close()
    engine.close()

    assert engine.report().cpu_ns >= 0


def test_a_pause_in_a_capture_loses_no_time(engine: Engine) -> None:
    """As before and after a fork."""
    heard, worker = Heard(), Worker("burner", lambda: burn(0.3))
    try:
        engine.attach(heard)
        worker.begin.set()
        for _ in range(5):
            engine.pause()
            engine.resume()
            engine.look()
        look_until(engine, worker.done)
        engine.detach(heard)
    finally:
        worker.join()

    assert heard.cpu_ns("burner") == pytest.approx(worker.used, rel=0.02, abs=2_000_000)


def test_the_sampling_itself_is_in_a_frame_of_its_own(engine: Engine) -> None:
    engine.attach(heard := Heard())
    before = time.thread_time_ns()
    for _ in range(50):
        engine.look()
    engine.detach(heard)
    used = time.thread_time_ns() - before

    assert 0 < heard.cpu_ns(function="<profiling_middleware sampling>") <= 1.2 * used + 2_000_000
