"""Code objects that come and go while they are sampled: no frame has another one's name."""

from __future__ import annotations

import random
import sys
import time

import pytest
from engine_kit import Heard, Worker, burn, look_until

from profiling_middleware.sampling.engine import Engine

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the native engine is Linux's")

FUNCTION = """\
{blank}
class C{number}:
    def method_{number}(self, until):
        while clock() < until:
            pass
C{number}().method_{number}(clock() + {seconds})
"""


class MadeCode:
    """Modules compiled from text, run and freed one after the other, and when each of them ran."""

    def __init__(self, seed: int, count: int) -> None:
        self._random = random.Random(seed)
        self._count = count
        self.spans: list[tuple[int, int, int, int]] = []
        """Of each: its number, how far down its text begins, and from when to when it ran."""

    def run(self) -> None:
        for number in range(self._count):
            lines = self._random.randrange(3)
            text = FUNCTION.format(blank="\n" * lines, number=number, seconds=self._random.uniform(0.002, 0.015))
            space = {"clock": time.thread_time, "__name__": "made"}
            began = time.monotonic_ns()
            exec(compile(text, f"<made {number}>", "exec"), space)
            self.spans.append((number, lines, began, time.monotonic_ns()))
            del space

    def possible(self, when: int) -> set[tuple[str, str, int]]:
        """The function, file and line of every frame of made code that can have been there at that time."""
        if when > self.spans[-1][3]:
            # What is left when a capture ends has no stack of its own: it goes to the last one that was sampled.
            return set().union(*(self._frames(*span[:2]) for span in self.spans))
        return set().union(*(self._frames(*span[:2]) for span in self.spans if span[2] <= when <= span[3]))

    @staticmethod
    def _frames(number: int, lines: int) -> set[tuple[str, str, int]]:
        file, top = f"<made {number}>", lines + 1
        module = {("<module>", file, line) for line in range(1, top + 6)}
        method = {(f"C{number}.method_{number}", file, line) for line in range(top + 2, top + 5)}
        return {*module, *method, (f"C{number}", file, top + 1), (f"C{number}", file, top + 2)}


@pytest.mark.parametrize("seed", [1, 2])
def test_code_that_was_made_and_freed_is_never_reported_under_another_name(native_engine: Engine, seed: int) -> None:
    made, heard = MadeCode(seed, 60), Heard(wants_waits=True)
    worker = Worker("maker", made.run)
    try:
        native_engine.attach(heard)
        worker.begin.set()
        look_until(native_engine, worker.done)
        native_engine.detach(heard)
    finally:
        worker.join()

    seen, wrong = 0, []
    for sample in heard.samples:
        frames = [frame for frame in sample.stack.frames if frame.file.startswith("<made ")]
        # What a thread notes of itself: a look from outside adds what it has waited.
        if sample.cpu_ns and sample.cpu_ns == sample.wall_ns and frames:
            possible = made.possible(sample.time_ns)
            seen += 1
            wrong += [frame for frame in frames if frame[:3] not in possible]
    assert wrong == []
    if native_engine.name == "native":
        assert seen >= 20


def test_code_at_the_address_of_freed_code_has_its_own_name(native_engine: Engine) -> None:
    heard, addresses = Heard(), []

    def one_after_the_other() -> None:
        for number in range(10):
            code = compile("burn(0.03)", f"<only {number}>", "exec")
            addresses.append(id(code))
            exec(code, {"burn": burn})
            del code

    worker = Worker("maker", one_after_the_other)
    try:
        native_engine.attach(heard)
        worker.begin.set()
        look_until(native_engine, worker.done)
        native_engine.detach(heard)
    finally:
        worker.join()

    assert len(set(addresses)) < len(addresses)  # else this shows nothing
    files = {frame.file for frame in heard.frames("maker") if frame.file.startswith("<only ")}
    # Polling may see nothing of a piece as short as these, but never another one in its place.
    assert files <= {f"<only {number}>" for number in range(10)}
    assert len(files) >= (10 if native_engine.name == "native" else 6)
