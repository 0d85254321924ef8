"""When instruments look: driven by a clock of the test's own."""

from __future__ import annotations

import logging

import pytest

from profiling_middleware.instruments import WaitListener
from profiling_middleware.instruments.looks import InstrumentLooks
from profiling_middleware.timer import Timeline


class Scripted:
    """An instrument that looks so often, or not at all."""

    limits: tuple[str, ...] = ()

    def __init__(self, pause: float | None) -> None:
        self.pause = pause
        self.looks, self.closed = 0, 0
        self.error: Exception | None = None

    def look(self) -> float | None:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.pause

    def close(self) -> None:
        self.closed += 1
        self.pause = None

    def attach(self, listener: WaitListener) -> None: ...

    def detach(self, listener: WaitListener) -> None: ...

    def flush(self) -> None: ...

    def set_wait_rates(self, block_rate_ns: int, mutex_fraction: int) -> None: ...


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.timeline = Timeline(lambda: self.now, logging.getLogger("test"))

    def pass_(self, seconds: float, step: float = 0.1) -> None:
        for _ in range(round(seconds / step)):
            self.now += step
            self.timeline.run_due()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_each_looks_at_its_own_pace_however_often_somebody_begins_to_listen(clock: Clock) -> None:
    often, seldom = Scripted(0.5), Scripted(2.0)
    looks = InstrumentLooks([often, seldom], clock.timeline, logging.getLogger("test"))
    for _ in range(4):
        looks.go_on()
    assert (often.looks, seldom.looks) == (1, 1)
    clock.pass_(10.05)
    assert often.looks == pytest.approx(20, abs=2)
    assert seldom.looks == pytest.approx(6, abs=1)


def test_one_that_nobody_listens_to_rests_until_somebody_may(clock: Clock) -> None:
    instrument = Scripted(None)
    looks = InstrumentLooks([instrument], clock.timeline, logging.getLogger("test"))
    looks.go_on()
    clock.pass_(10)
    assert instrument.looks == 1
    assert not clock.timeline.waits

    instrument.pause = 0.5
    looks.go_on()
    clock.pass_(1.25)
    assert instrument.looks >= 3

    instrument.pause = None
    clock.pass_(1)
    seen = instrument.looks
    clock.pass_(10)
    assert instrument.looks == seen


def test_one_that_fails_is_closed_and_the_others_go_on(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    bad, good = Scripted(0.5), Scripted(0.5)
    bad.error = ValueError("no")
    InstrumentLooks([bad, good], clock.timeline, logging.getLogger("test")).go_on()
    clock.pass_(3)
    assert (bad.looks, bad.closed) == (1, 1)
    assert good.looks >= 5
    assert "Scripted failed and is left out" in caplog.text
