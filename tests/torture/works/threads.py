"""Threads that are born and die, and many that sleep."""

from __future__ import annotations

import _thread
import itertools
import threading
import time

from torture.shared import spin
from torture.stage import Stage, ended

_numbers = itertools.count()


def churn(stage: Stage) -> None:  # called by run
    """Short lives, so that the system's numbers and the thread states' memory are used again; each kind in turn."""
    random = stage.random("churn")
    while not stage.stopped.is_set():
        with stage.ending_threads():
            threads = [stage.start(random.choice((brief, busy, nested)), number=next(_numbers)) for _ in range(5)]
            for _ in range(random.randrange(4)):
                _thread.start_new_thread(unknown, ())
            if left := ended(threads, 30):
                stage.fail(f"threads did not end: {left}")
        stage.done["threads born"] += len(threads)
        stage.breathe(random)


def brief(stage: Stage) -> None:  # called by run
    spin(100)


def busy(stage: Stage) -> None:  # called by run
    for _ in range(20):
        spin(3_000)


def nested(stage: Stage) -> None:  # called by run
    """The thread that started it has often gone before it."""
    stage.start(busy, number=next(_numbers))
    spin(1_000)


def unknown() -> None:  # called by nobody
    """A thread that `threading` does not know."""
    spin(5_000)


def crowd(stage: Stage) -> None:  # called by run
    """Many threads at once, nearly all asleep."""
    random = stage.random("crowd")
    while not stage.wait(random.random()):
        leave = threading.Event()

        def wait_for_it(stage: Stage, leave: threading.Event = leave) -> None:  # called by run
            leave.wait(60)
            spin(200)

        with stage.ending_threads():
            threads = []
            for _ in range(random.choice((20, 60, 150))):
                threads.append(stage.start(wait_for_it, number=next(_numbers)))
            time.sleep(random.random() / 2)
            leave.set()
            if left := ended(threads, 30):
                stage.fail(f"a crowd did not end: {len(left)}")
        stage.done["threads in crowds"] += len(threads)
