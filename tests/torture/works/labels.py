"""Contexts and labels made and freed: work done in a context must not be said to be another's."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable
from random import Random

from profiling_middleware.labels import CURRENT, LabelMaker, end_work
from profiling_middleware.model import Label
from profiling_middleware.sampling import make_label_maker
from torture.shared import spin
from torture.stage import Stage

_numbers = itertools.count()
_OTHERS = [contextvars.ContextVar[int](f"other_{number}") for number in range(40)]
_SAID: dict[str, tuple[Label, ...]] = {}


class Subject:
    """Whom work is done for. The engine may keep it until its labels are known, and no longer."""

    made, gone = itertools.count(), itertools.count()

    def __init__(self, work: Callable[..., object]) -> None:
        self.name = work.__name__
        next(Subject.made)

    def __del__(self) -> None:  # called by anything
        next(Subject.gone)

    @classmethod
    def left(cls) -> int:
        """How many there are. To be asked once, at the end."""
        return next(cls.made) - next(cls.gone)


def said_of(subject: Subject) -> tuple[Label, ...]:  # called by the library
    return _SAID.setdefault(subject.name, (Label("work", subject.name),))


def labels(stage: Stage) -> None:  # called by run
    """Threads and tasks that go from context to context."""
    from profiling_middleware.config import Settings

    random = stage.random(f"labels {next(_numbers)}")
    make = make_label_maker(Settings(engine=stage.engine))  # type: ignore[arg-type]
    if make is None:
        return
    while not stage.stopped.is_set():
        stage.breathe(random)
        for _ in range(20):
            contextvars.copy_context().run(in_context, make, random)
        asyncio.run(in_tasks(make))
        stage.done["contexts"] += 24


def in_context(make: LabelMaker, random: Random) -> None:  # called by labels
    for variable in random.sample(_OTHERS, random.randrange(40)):
        variable.set(1)
    work = random.choice((labelled_1, labelled_2, labelled_3))
    token = CURRENT.set(make(said_of, Subject(work)))
    work(random.choice((10, 500, 2_000)))  # labelled
    end_work(token)


def labelled_1(turns: int) -> int:
    return spin(turns)


def labelled_2(turns: int) -> int:
    return contextvars.copy_context().run(spin, turns)


def labelled_3(turns: int) -> int:
    for variable in _OTHERS[:10]:
        variable.set(turns)
        spin(turns // 10)
    return turns


async def in_tasks(make: LabelMaker) -> None:  # called by the library
    await asyncio.gather(*(task(make, work) for work in (labelled_4, labelled_5, labelled_6, labelled_4)))


async def task(make: LabelMaker, work: Callable[[], object]) -> None:  # called by the library
    token = CURRENT.set(make(said_of, Subject(work)))
    for _ in range(3):
        work()  # labelled
        await asyncio.sleep(0)
    end_work(token)


def labelled_4() -> int:
    return spin(400)


def labelled_5() -> int:
    return spin(200)


def labelled_6() -> int:
    return spin(600)
