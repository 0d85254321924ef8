"""Clients that read slowly, not at all, or leave in the middle: what is held for them is bounded, and how long."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from profiling_middleware.config import Settings
from profiling_middleware.limits import CLIENTS, LimitMet, Limits
from profiling_middleware.middleware.admin import Pending
from profiling_middleware.middleware.asgi import ProfilingMiddleware
from profiling_middleware.middleware.asgi_answer import _answer_capture
from profiling_middleware.middleware.messages import PIECE_BYTES, AdminResponse
from profiling_middleware.middleware.wsgi_answer import CaptureBody
from profiling_middleware.private_file import PrivateFile

BIG = 100 * PIECE_BYTES + 7


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
def ended(limits: Limits, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> Pending:
    """A capture that has ended and is to be sent."""
    result: Future[Any] = Future()
    result.set_result(None)
    recording = SimpleNamespace(result=result, info=SimpleNamespace(capture_id="0123"), cancel=lambda: None)
    return Pending(recording, False, limits.admit(waits=True, uploads=False), logger)  # type: ignore[arg-type]


@pytest.fixture(params=["bytes", "file"])
def body(request: pytest.FixtureRequest) -> Iterator[bytes | PrivateFile]:
    if request.param == "bytes":
        yield b"x" * BIG
        return
    file = PrivateFile()
    file.append(b"x" * BIG)
    yield file
    file.close()


def has_room(limits: Limits) -> bool:
    """Whether all places are free."""
    places = []
    with contextlib.suppress(LimitMet):
        while True:
            places.append(limits.admit(waits=True, uploads=False))
    for place in places:
        place.leave()
    return len(places) == CLIENTS


async def never() -> Any:
    await asyncio.Event().wait()


def answer_with(monkeypatch: pytest.MonkeyPatch, body: bytes | PrivateFile) -> None:
    monkeypatch.setattr(Pending, "response", lambda pending: AdminResponse(200, body))


# -- ASGI -------------------------------------------------------------------------------------------------------------


def test_a_server_gets_a_big_answer_piece_by_piece(
    ended: Pending, body: bytes | PrivateFile, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, body)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(_answer_capture(ended, never, send))

    assert b"".join(message["body"] for message in sent[1:]) == b"x" * BIG
    assert max(len(message["body"]) for message in sent[1:]) == PIECE_BYTES
    assert [message.get("more_body", False) for message in sent[1:]] == [True] * (len(sent) - 2) + [False]
    assert has_room(limits)


def test_others_of_the_loop_go_on_while_a_big_answer_is_sent(
    ended: Pending, body: bytes | PrivateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server takes what a fast client reads without ever making `send` wait."""
    answer_with(monkeypatch, body)
    order: list[str] = []

    async def send(message: Any) -> None:
        order.append("sent")

    async def other() -> None:
        while order.count("sent") < 50:
            order.append("other")
            await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(_answer_capture(ended, never, send), other())

    asyncio.run(both())

    assert order[: order.index("sent") + 90].count("other") > 30


def test_an_answer_that_is_not_read_is_broken_off_and_counted(
    ended: Pending,
    body: bytes | PrivateFile,
    limits: Limits,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As uvicorn's and hypercorn's `send` for a connection whose buffers are full."""
    answer_with(monkeypatch, body)
    monkeypatch.setattr("profiling_middleware.limits.READ_SECONDS", 0.05)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 3:
            assert not has_room(limits)
            await never()

    asyncio.run(_answer_capture(ended, never, send))

    assert [message.get("more_body", False) for message in sent] == [False, True, True]
    assert has_room(limits)
    assert limits.met["reading time"] == 1
    assert "capture=0123 not sent: its client has not read it within 0.05 s" in caplog.text


def test_a_small_answer_is_not_waited_for_for_ever_either(
    ended: Pending, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, b"small")
    monkeypatch.setattr("profiling_middleware.limits.READ_SECONDS", 0.05)

    asyncio.run(_answer_capture(ended, never, lambda message: never()))

    assert limits.met["reading time"] == 1
    assert has_room(limits)


@pytest.mark.parametrize("error", [None, ConnectionResetError])
def test_a_refusal_is_not_waited_for_for_ever_either(
    error: type[Exception] | None, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who sends request after request on a connection and reads none of the answers."""
    monkeypatch.setattr("profiling_middleware.limits.READ_SECONDS", 0.05)
    scope = {"type": "http", "path": "/debug/pprof/cpu", "method": "GET", "headers": [], "http_version": "1.1"}

    async def send(message: Any) -> None:
        if error is not None:
            raise error
        await never()

    asyncio.run(ProfilingMiddleware(never, settings=Settings())(scope, never, send))  # type: ignore[arg-type]


def test_a_client_that_leaves_in_the_middle_is_sent_no_more(
    ended: Pending, body: bytes | PrivateFile, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers take what is sent to nobody in silence."""
    answer_with(monkeypatch, body)
    sent: list[Any] = []

    async def both() -> None:
        left = asyncio.Event()

        async def receive() -> Any:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) == 5:
                left.set()

        await _answer_capture(ended, receive, send)

    asyncio.run(both())

    assert 5 <= len(sent) < 10
    assert has_room(limits)
    assert "reading time" not in limits.met


def test_a_server_that_says_that_the_client_has_left_is_believed(
    ended: Pending, body: bytes | PrivateFile, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From ASGI 2.4 on `send` raises OSError."""
    answer_with(monkeypatch, body)

    async def send(message: Any) -> None:
        raise BrokenPipeError

    asyncio.run(_answer_capture(ended, never, send))

    assert has_room(limits)
    assert "reading time" not in limits.met


def test_a_request_that_is_cancelled_while_it_is_answered_makes_room(
    ended: Pending, body: bytes | PrivateFile, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, body)

    async def cancelled() -> None:
        sending = asyncio.Event()

        async def send(message: Any) -> None:
            sending.set()
            await never()

        task = asyncio.ensure_future(_answer_capture(ended, never, send))
        await sending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())

    assert has_room(limits)


# -- WSGI -------------------------------------------------------------------------------------------------------------


def send_all(body: Any, connection: socket.socket) -> Exception | None:
    """As gunicorn's threads do it; what went wrong."""
    try:
        for piece in body:
            connection.sendall(piece)
    except OSError as error:
        return error
    finally:
        body.close()
    return None


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    server, client = socket.socketpair()
    yield server, client
    server.close()
    client.close()


def test_a_thread_that_sends_to_one_who_reads_nothing_is_set_free(
    ended: Pending,
    body: bytes | PrivateFile,
    limits: Limits,
    ends: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("profiling_middleware.limits.READ_SECONDS", 0.05)

    error = send_all(CaptureBody(body, ended, ends[0]), ends[0])

    # Which servers take for a client that has left.
    assert isinstance(error, OSError)
    assert error.errno in (errno.EPIPE, errno.ECONNRESET)
    assert limits.met["reading time"] == 1
    assert has_room(limits)


def test_where_there_is_no_socket_the_time_is_looked_at_between_two_pieces(
    ended: Pending, body: bytes | PrivateFile, limits: Limits, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiling_middleware.middleware.wsgi_answer.time.monotonic", clock)
    answer = CaptureBody(body, ended, None)
    pieces = iter(answer)
    clock.now += 299
    next(pieces)
    clock.now += 1

    with pytest.raises(ConnectionResetError):
        next(pieces)
    answer.close()

    assert limits.met["reading time"] == 1
    assert has_room(limits)


def test_a_client_that_reads_all_of_it_in_time_is_not_disturbed(
    ended: Pending,
    body: bytes | PrivateFile,
    limits: Limits,
    ends: tuple[socket.socket, socket.socket],
    side_thread: Callable[[Callable[[], object]], None],
) -> None:
    read = bytearray()

    def read_all() -> None:
        while len(read) < BIG:
            read.extend(ends[1].recv(65536))

    side_thread(read_all)
    error = send_all(CaptureBody(body, ended, ends[0]), ends[0])

    assert error is None
    assert ends[0].fileno() >= 0
    ends[0].sendall(b"the next answer of the connection")
    assert "reading time" not in limits.met
    assert has_room(limits)


def test_a_wsgi_client_that_leaves_in_the_middle_makes_room(
    ended: Pending, body: bytes | PrivateFile, limits: Limits, ends: tuple[socket.socket, socket.socket]
) -> None:
    answer = CaptureBody(body, ended, ends[0])
    assert not has_room(limits)
    ends[1].close()

    assert isinstance(send_all(answer, ends[0]), OSError)
    assert has_room(limits)
    assert "reading time" not in limits.met


def test_a_server_that_forgets_to_close_the_body_holds_no_place(ended: Pending, limits: Limits) -> None:
    body = CaptureBody(b"x" * BIG, ended, None)
    next(iter(body))
    del body
    gc.collect()

    assert has_room(limits)


@pytest.fixture
def side_thread(deadline: float) -> Iterator[Callable[[Callable[[], object]], None]]:
    threads: list[threading.Thread] = []

    def start(work: Callable[[], object]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(deadline)
        assert not thread.is_alive()
