"""A fork that never lets go of the imports delays them, and no more."""

from __future__ import annotations

import threading

import pytest

from profiling_middleware import imports
from profiling_middleware.imports import Imports


def test_what_a_fork_does_not_let_go_of_is_waited_for_within_a_bound(
    monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    monkeypatch.setattr(imports, "_LONGEST_SECONDS", 0.05)
    these, imported = Imports(), threading.Event()
    these.before_fork(0.1)

    def work() -> None:
        with these.underway():
            imported.set()

    thread = threading.Thread(target=work)
    thread.start()

    assert imported.wait(deadline)
    thread.join(deadline)
    these.after_fork_in_parent()
