"""The load and its HTTP client, against a server that stands in this file."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from sample_app import load
from sample_app.http_connection import HttpConnection, HttpError

OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "/plain": OK + b"Content-Length: 5\r\n\r\nhello",
    "/held": OK + b"Content-Length: 5\r\n\r\nhello",
    "/chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "/error": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    "/nonsense": b"hello\r\n\r\n",
    "/says-goodbye": OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi",
    "/until-the-end": OK + b"\r\nall that comes",
    "/leaves": OK + b"Content-Length: 2\r\n\r\nhi",
    "/breaks-off": OK + b"Content-Length: 100\r\n\r\nhello",
    "/silent": b"",
}
HANGS_UP_AFTER = {"/says-goodbye", "/until-the-end", "/leaves", "/breaks-off", "/silent"}


@dataclass
class Server:
    """Where it listens, and what it has seen."""

    port: int = 0
    connections: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    """`/held` answers once this is set."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def has_seen(self, path: str, count: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.requests[path] >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            path = ""
            while path not in HANGS_UP_AFTER:
                path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
                async with self.changed:
                    self.requests[path] += 1
                    self.changed.notify_all()
                if path == "/held":
                    await self.release.wait()
                writer.write(ANSWERS[path])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The client has hung up.
        finally:
            writer.close()


@asynccontextmanager
async def running_server() -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield server


def test_a_connection_is_used_again_however_the_body_ends() -> None:
    async def scenario() -> None:
        async with running_server() as server:
            connection = HttpConnection("127.0.0.1", server.port)
            statuses = [await connection.get(path) for path in ("/plain", "/chunked", "/error", "/plain")]
            await connection.close()
        assert statuses == [200, 200, 500, 200]
        assert server.connections == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/says-goodbye", "/until-the-end", "/leaves"])
def test_a_connection_that_the_server_closed_is_opened_again(path: str) -> None:
    async def scenario() -> None:
        async with running_server() as server:
            connection = HttpConnection("127.0.0.1", server.port)
            assert [await connection.get(path), await connection.get("/plain")] == [200, 200]
            await connection.close()
        assert server.connections == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("/nonsense", "not HTTP"), ("/breaks-off", "broke off"), ("/silent", "hung up before it answered")],
)
def test_half_an_answer_is_an_error_and_the_next_request_gets_its_own(path: str, complaint: str) -> None:
    async def scenario() -> None:
        async with running_server() as server:
            connection = HttpConnection("127.0.0.1", server.port)
            with pytest.raises(HttpError, match=complaint):
                await connection.get(path)
            assert await connection.get("/plain") == 200
            await connection.close()

    asyncio.run(scenario())


def test_a_request_that_is_cancelled_leaves_nothing_for_the_next() -> None:
    async def scenario() -> None:
        async with running_server() as server:
            connection = HttpConnection("127.0.0.1", server.port)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.get("/held"), 0.01)
            server.release.set()
            assert await connection.get("/error") == 500
            await connection.close()

    asyncio.run(scenario())


def test_a_load_sends_its_rate_and_counts_each_path() -> None:
    async def scenario() -> None:
        async with running_server() as server:
            result = await load.run_load(server.url, rate=200, seconds=0.25, mix={"/plain": 3, "/error": 1})
        counts = {path.path: path.requests for path in result.paths}
        assert counts == dict(server.requests)
        assert result.requests == 50
        plain, error = result.paths
        assert plain.failures == 0
        assert len(plain.latencies) == plain.requests > error.requests
        assert error.failures == error.requests > 0
        assert result.first_failure == "/error: status 500"

    asyncio.run(scenario())


def test_requests_come_at_random_moments_and_not_more_or_fewer_than_the_rate() -> None:
    arrivals = list(itertools.islice(load._arrivals(20), 4_000))

    pauses = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    assert min(pauses) >= 0
    assert [int(moment / 0.5) for moment in arrivals] == [number // 10 for number in range(4_000)]
    # Of visitors that know nothing of each other 18 % come within a fifth of the usual pause; here a little fewer.
    assert 0.14 < sum(pause < 0.01 for pause in pauses) / len(pauses) < 0.20
    assert arrivals == list(itertools.islice(load._arrivals(20), 4_000))


def test_a_stalled_service_does_not_slow_the_load_and_its_wait_is_counted() -> None:
    async def scenario() -> None:
        async with running_server() as server:
            running = asyncio.ensure_future(
                load.run_load(server.url, rate=200, seconds=0.2, mix={"/held": 1}, connections=2)
            )
            await server.has_seen("/held", 2)
            asyncio.get_running_loop().call_later(0.2, server.release.set)
            result = await running
        assert result.requests == 40
        assert result.failures == 0
        assert result.paths[0].percentile(0.5) > 0.05

    asyncio.run(scenario())


def test_what_is_due_while_too_many_wait_is_skipped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "WAITING", 3)
    monkeypatch.setattr(load, "REQUEST_SECONDS", 1.0)

    async def scenario() -> None:
        async with running_server() as server:
            result = await load.run_load(server.url, rate=1000, seconds=0.1, mix={"/held": 1}, connections=1)
            server.release.set()
        # One is held, three wait, and all others become due long before the first gives up.
        assert (result.requests, result.failures, result.skipped) == (4, 4, 96)

    asyncio.run(scenario())


def test_a_request_without_an_answer_fails_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "REQUEST_SECONDS", 0.05)

    async def scenario() -> None:
        async with running_server() as server:
            result = await load.run_load(server.url, rate=500, seconds=0.02, mix={"/held": 1})
            server.release.set()
        assert (result.requests, result.failures) == (10, 10)
        assert result.first_failure == "/held: no answer within 0.05 s"

    asyncio.run(scenario())


def test_a_load_without_end_ends_when_it_is_told_to() -> None:
    async def scenario() -> None:
        async with running_server() as server:
            stop = asyncio.Event()
            running = asyncio.ensure_future(
                load.run_load(server.url, rate=500, seconds=None, mix={"/plain": 1}, stop=stop)
            )
            await server.has_seen("/plain", 5)
            stop.set()
            result = await running
        assert result.requests == server.requests["/plain"] >= 5
        assert result.failures == 0

    asyncio.run(scenario())


def test_a_service_that_is_not_there_is_a_failure_not_a_crash() -> None:
    command = [sys.executable, "-m", "sample_app.load", "http://127.0.0.1:1", "--seconds=0.05", "--rate=200"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "10 failed" in done.stdout
    assert "Connect call failed" in done.stdout


@pytest.mark.parametrize("url", ["http://example.com", "http://10.0.0.1:8000", "http://0.0.0.0:8000"])
def test_only_this_machine_gets_a_load(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load.main([url])

    assert ended.value.code == 2
    assert "another machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("http://localhost", ("127.0.0.1", 80)),
        ("http://[::1]:81/", ("::1", 81)),
    ],
)
def test_loopback_is_known_under_all_its_names(url: str, address: tuple[str, int]) -> None:
    assert load.loopback_address(url) == address


@pytest.mark.parametrize(
    "arguments",
    [["127.0.0.1:8000"], ["http://127.0.0.1", "--rate=0"], ["http://127.0.0.1", "--paths=hot"]],
    ids=["no scheme", "no rate", "no path"],
)
def test_what_cannot_be_sent_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load.main(arguments)

    assert ended.value.code == 2
