"""Threads without Python: they are never sampled, and their CPU time is not lost."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from engine_kit import DEADLINE, Heard, burn

from profiling_middleware.sampling.clocks import ThreadClocks, native_thread_ids, native_thread_name
from profiling_middleware.sampling.engine import Engine
from profiling_middleware.sampling.natives import NativeThreads
from profiling_middleware.threads import wait_until_gone

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux's clocks")

MS = 1_000_000


class Burning:
    """A thread that works when it is told to; to NativeThreads all threads are alike."""

    def __init__(self) -> None:
        self.native_id = 0
        self._there, self._told, self._did = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)
        self._seconds: float | None = 0.0
        self.thread = threading.Thread(target=self._run, name="burning")
        self.thread.start()
        assert self._there.wait(DEADLINE)

    def _run(self) -> None:
        self.native_id = threading.get_native_id()
        self._there.set()
        while self._told.acquire(timeout=DEADLINE) and self._seconds is not None:
            burn(self._seconds)
            self._did.release()

    def burn(self, seconds: float) -> int:
        """What its clock says afterwards."""
        self._seconds = seconds
        self._told.release()
        assert self._did.acquire(timeout=DEADLINE)
        return self.clock()

    def clock(self) -> int:
        now, before = ThreadClocks.cpu_ns(self.native_id), None
        while now != before:  # until it waits again
            time.sleep(0.01)
            now, before = ThreadClocks.cpu_ns(self.native_id), now
        assert now is not None
        return now

    def end(self) -> None:
        self._seconds = None
        self._told.release()
        wait_until_gone(self.thread, DEADLINE)


@pytest.fixture
def burning() -> Iterator[Burning]:
    burning = Burning()
    yield burning
    burning.end()


def spent_by(natives: NativeThreads, burning: Burning, others: set[int] | None = None) -> list[int]:
    found = natives.take(set(native_thread_ids()) - {burning.native_id} if others is None else others)
    assert all(thread.native_id == burning.native_id for thread, _ in found)
    return [spent for _, spent in found]


def test_each_take_has_what_was_used_since_the_last_one(burning: Burning) -> None:
    natives, total = NativeThreads(native_thread_ids, native_thread_name), 0
    for seconds in (0.02, 0.04):
        clock = burning.burn(seconds)
        assert spent_by(natives, burning) == [clock - total]
        total = clock

    assert spent_by(natives, burning) == []


def test_threads_with_python_are_not_among_them(burning: Burning) -> None:
    natives = NativeThreads(native_thread_ids, native_thread_name)
    burning.burn(0.02)

    assert spent_by(natives, burning, set(native_thread_ids())) == []


def test_a_thread_that_has_left_python_for_good_is_one_from_then_on(burning: Burning) -> None:
    """What it used before was handed out by its samples: its clock is all that is known, so no time comes twice."""
    natives = NativeThreads(native_thread_ids, native_thread_name)
    spent_by(natives, burning)
    before = burning.clock()
    spent_by(natives, burning)
    clock = burning.burn(0.03)

    assert spent_by(natives, burning) == [clock - before]


def test_a_thread_keeps_its_identity_from_one_take_to_the_next(burning: Burning) -> None:
    natives, others = (
        NativeThreads(native_thread_ids, native_thread_name),
        set(native_thread_ids()) - {burning.native_id},
    )
    burning.burn(0.01)
    (one, _), *_ = natives.take(others)
    burning.burn(0.01)
    (same, _), *_ = natives.take(others)

    assert one is same


def test_a_thread_that_has_ended_is_forgotten() -> None:
    natives, burning = NativeThreads(native_thread_ids, native_thread_name), Burning()
    burning.burn(0.01)
    spent_by(natives, burning)
    burning.end()

    assert natives.take(set(native_thread_ids())) == []
    assert natives._used == {}


def test_a_number_that_another_thread_has_now_is_not_the_old_threads_clock(
    burning: Burning, monkeypatch: pytest.MonkeyPatch
) -> None:
    natives, others = (
        NativeThreads(native_thread_ids, native_thread_name),
        set(native_thread_ids()) - {burning.native_id},
    )
    burning.burn(0.05)
    (old, _), *_ = natives.take(others)
    monkeypatch.setattr(ThreadClocks, "cpu_ns", staticmethod(lambda native_id: 7 * MS))
    (new, spent), *_ = natives.take(others)

    assert new is not old
    assert spent == 7 * MS


class CThread:
    """A thread of the C library's: it reads a long number, and never sees Python."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._digits = ctypes.create_string_buffer(b"0" * 64_000_000)
        self._handle = ctypes.c_ulong()
        self.ended = False

    def begin(self) -> int:
        """Its native id."""
        before = set(native_thread_ids())
        atoi = ctypes.cast(self._library.atoi, ctypes.c_void_p)
        assert self._library.pthread_create(ctypes.byref(self._handle), None, atoi, self._digits) == 0
        (native_id,) = set(native_thread_ids()) - before
        return native_id

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self._library.pthread_join(self._handle, None)


def test_what_a_thread_of_c_uses_stands_in_a_frame_of_its_own(native_engine: Engine) -> None:
    thread, heard = CThread(), Heard()
    native_engine.attach(heard)
    before, own_before = time.process_time_ns(), time.thread_time_ns()
    native_id = thread.begin()
    try:
        while (used := ThreadClocks.cpu_ns(native_id)) is not None and used < 10 * MS:
            pass
        native_engine.look()
        native_engine.detach(heard)
        still_there = ThreadClocks.cpu_ns(native_id) is not None
        total = (time.process_time_ns() - before) - (time.thread_time_ns() - own_before)
    finally:
        thread.end()

    without = [sample for sample in heard.samples if sample.stack.frames[0].function == "<thread without Python>"]
    ended = heard.cpu_ns(function="<thread ended between two looks>")
    seen = sum(sample.cpu_ns for sample in without)
    assert 10 * MS <= seen + ended <= total + 2 * MS
    if still_there:
        assert {sample.thread.native_id for sample in without} == {native_id}
        assert seen >= 10 * MS


def test_the_extension_tells_the_same(need_native: Callable[[], None], burning: Burning) -> None:
    need_native()
    from profiling_middleware.sampling import _native

    assert sorted(_native.task_ids()) == sorted(native_thread_ids())
    for native_id in native_thread_ids():
        assert _native.task_name(native_id) == native_thread_name(native_id)
    assert _native.task_name(2**31 - 2) == ""
    with pytest.raises(TypeError):
        _native.task_name("one")  # type: ignore[arg-type]
