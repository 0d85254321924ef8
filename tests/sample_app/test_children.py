"""Children end when they are told to, and one way or another."""

from __future__ import annotations

import os
import signal
import sys
import tempfile

from sample_app.children import start_child, stop_child


def test_a_child_gets_its_environment_and_its_output_is_kept() -> None:
    with tempfile.TemporaryFile() as output:
        child = start_child([sys.executable, "-c", "import os; print(os.environ)"], {"ONLY": "this"}, output)

        assert child.wait(30) == 0
        output.seek(0)
        assert b"'ONLY': 'this'" in output.read()


def test_a_child_is_asked_to_end() -> None:
    child = start_child([sys.executable, "-c", "import signal; signal.pause()"])

    assert stop_child(child) == -signal.SIGTERM


def test_a_child_that_does_not_listen_is_killed() -> None:
    stubborn = (
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\n"
        "while True: signal.pause()"
    )
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as said, os.fdopen(writing, "wb") as output:
        child = start_child([sys.executable, "-c", stubborn], output=output)
        assert said.readline() == b"deaf\n"

        assert stop_child(child, patience=0.1) == -signal.SIGKILL


def test_the_exit_code_of_a_child_that_has_ended_is_kept() -> None:
    child = start_child([sys.executable, "-c", "raise SystemExit(7)"])
    child.wait(30)

    assert stop_child(child) == 7


def test_a_command_that_is_not_there_is_named() -> None:
    with tempfile.TemporaryFile() as output:
        child = start_child(["no-such-command"], output=output)

        assert child.wait(30) != 0
        output.seek(0)
        assert b"no-such-command" in output.read()
