"""One question to another worker."""

from __future__ import annotations

import logging
import socket
import time

from profiling_middleware.workers.call import HURRY_SECONDS, Call
from profiling_middleware.workers.messages import Question, to_frame
from profiling_middleware.workers.reactor import Reactor


def test_one_that_says_late_that_it_has_begun_is_waited_for_no_longer(logger: logging.Logger) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call = Call(
            Reactor(logger),
            ours,
            11,
            "web-1-11-0a1b2c3d",
            Question(kind="cpu", seconds=60.0),
            max_bytes=1000,
            directory=None,
            on_end=lambda call, part: None,
        )
        call.end_early("SIGTERM")
        theirs.sendall(to_frame({"begun": True}))
        call.on_ready()

        assert call.deadline is not None
        assert call.deadline <= time.monotonic() + HURRY_SECONDS
