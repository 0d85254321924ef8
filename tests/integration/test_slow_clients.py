"""Real servers and clients that do not read what they asked for: their places become free again, and nobody waits."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from integration_kit.http import bearer
from integration_kit.servers import Server, Servers
from integration_kit.waiting import eventually

pytestmark = pytest.mark.server

TOKEN = "tell-nobody"
SIZE = 24 * 1024 * 1024


@pytest.fixture(params=["uvicorn", "uvicorn with uvloop", "gunicorn"])
def server(request: pytest.FixtureRequest, servers: Servers) -> Server:
    settings = {"PROFILE_TOKEN": TOKEN}
    if request.param == "gunicorn":
        return servers.gunicorn(settings, "--threads", "12", app="big_answers:wsgi", hook=False)
    loop = "uvloop" if "uvloop" in request.param else "asyncio"
    return servers.uvicorn(settings, app="big_answers:asgi", loop=loop)


@pytest.fixture
def ask(server: Server) -> Iterator[Callable[[], socket.socket]]:
    """Sends a request for a capture and returns its connection, on which nothing has been read."""
    with ExitStack() as open_:

        def connect() -> socket.socket:
            parts = urlsplit(server.url)
            connection = open_.enter_context(socket.socket())
            connection.settimeout(30)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((parts.hostname, parts.port))
            head = f"GET /debug/pprof/cpu?seconds=0.05 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            connection.sendall(head.encode())
            return connection

        yield connect


def limits_met(server: Server) -> str:
    return server.facts(headers=bearer(TOKEN))["Limits met"]


def read_to_the_end(connection: socket.socket) -> int:
    """How much comes until the server hangs up."""
    count = 0
    try:
        while block := connection.recv(1 << 20):
            count += len(block)
    except ConnectionResetError:
        pass
    return count


def test_clients_that_read_a_byte_or_nothing_lose_their_answers_and_make_room(
    server: Server, ask: Callable[[], socket.socket]
) -> None:
    slow = [ask() for _ in range(8)]
    for connection in slow[::2]:
        assert connection.recv(1) == b"H"
    eventually(lambda: server.get("/debug/pprof/cpu", headers=bearer(TOKEN)).status == 429, "all places are taken")

    eventually(lambda: "reading time 8 times" in limits_met(server), "all of them are broken off")
    for connection in slow:
        assert read_to_the_end(connection) < SIZE
    assert server.get("/debug/pprof/cpu?seconds=0.05", headers=bearer(TOKEN)).status == 200
    assert len(server.lines("its client has not read it within 2 s")) == 8
    assert "Traceback" not in server.log


def test_a_client_that_leaves_in_the_middle_makes_room_at_once(
    server: Server, ask: Callable[[], socket.socket]
) -> None:
    for _ in range(3):
        leaving = [ask() for _ in range(8)]
        for connection in leaving:
            assert connection.recv(100)
        for connection in leaving:
            connection.close()
        eventually(
            lambda: server.get("/debug/pprof/cpu?seconds=0.05", headers=bearer(TOKEN)).status == 200, "there is room"
        )

    assert "reading time" not in limits_met(server)
    assert "Traceback" not in server.log


def test_no_task_and_no_thread_is_left_of_clients_that_do_not_read(
    server: Server, ask: Callable[[], socket.socket]
) -> None:
    def busy() -> int:
        return int(server.get("/busy").json()["tasks"])

    def watchers() -> int:
        return server.profiling_threads().count("profiling-answer")

    count = watchers if isinstance(server.process.args, list) and "gunicorn" in server.process.args else busy
    assert server.url
    before = count()
    _unread = [ask() for _ in range(8)]
    eventually(lambda: count() >= before + 8, "they are being answered")

    eventually(lambda: "reading time 8 times" in limits_met(server), "all of them are broken off")
    eventually(lambda: count() <= before, "nothing is left")


def test_whoever_reads_gets_all_of_it_beside_those_who_do_not(
    server: Server, ask: Callable[[], socket.socket], side_by_side: ThreadPoolExecutor
) -> None:
    _unread = [ask() for _ in range(4)]
    answers = list(
        side_by_side.map(lambda _: server.get("/debug/pprof/cpu?seconds=0.05", headers=bearer(TOKEN)), range(2))
    )

    assert [len(answer.body) for answer in answers] == [SIZE, SIZE]
