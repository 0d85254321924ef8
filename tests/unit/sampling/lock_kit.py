"""What the tests of measured locks share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from engine_kit import DEADLINE


def held(lock: Any) -> Callable[[], None]:
    """Another thread holds the lock until this is called."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        lock.acquire()
        taken.set()
        done.wait(DEADLINE)
        lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(DEADLINE)

    def end() -> None:
        done.set()
        thread.join(DEADLINE)

    return end
