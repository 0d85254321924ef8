"""What a service's users notice of S3 being away: the slowest answers, with the store away against with it there.

`python -m benchmarks.outage [--slices 40] [--seconds 6] [--load 60]`. The sample app profiles itself all the time, a
window every 2 s of all kinds, into an S3 server that is reached through a port of this process. In turn the port
answers, and nobody listens there: there, away, away, there. Compared are neighbours, so that what the machine does
besides is in both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.bootstrap import bootstrap
from benchmarks.pairs import machine
from sample_app.children import start_child, stop_child
from sample_app.load import run_load
from sample_app.ports import free_port
from sample_app.s3_server import S3Server

_KINDS = "cpu,wall,block,mutex,trace"
_READY_SECONDS, _WARM_UP_SECONDS = 30.0, 6.0
_BUCKET = "outage-dev"


class Side(NamedTuple):
    """The answers of one slice."""

    latencies: tuple[float, ...]
    failures: int


class Pair(NamedTuple):
    """Two slices that follow each other."""

    away: Side
    there: Side


class Port:
    """A port of 127.0.0.1 that leads to another one while it is open."""

    def __init__(self, target: int) -> None:
        self.number = free_port()
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def open(self) -> None:
        """From now on connections are accepted."""
        self._run(self._open())

    def close(self) -> None:
        """From now on they are refused, and those that there are end."""
        self._run(self._close())

    def _run(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", self.number)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._connections):
            writer.transport.abort()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        ends = {writer, there_writer}
        self._connections |= ends
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
        self._connections -= ends


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    writer.close()


@contextmanager
def service(s3: S3Server, port: Port) -> Iterator[str]:
    """The sample app with profiling on; its URL."""
    number = free_port()
    with tempfile.TemporaryDirectory() as spool:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PROFILE_", "AWS_"))}
        environ |= s3.environ() | {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port.number}",
            "PROFILE_S3_BUCKET": _BUCKET,
            "PROFILE_INTERVAL": "2s",
            "PROFILE_DURATION": "1s",
            "PROFILE_TYPES": _KINDS,
            "PROFILE_SPOOL_DIR": spool,
        }
        arguments = ["--enable-profiling", "--environment=dev", f"--port={number}", "--no-access-log"]
        with tempfile.TemporaryFile() as log:
            child = start_child([sys.executable, "-m", "sample_app", *arguments], environ, log)
            try:
                url = f"http://127.0.0.1:{number}"
                _wait_until_ready(url)
                yield url
            finally:
                stop_child(child, patience=30.0)
                log.seek(0)
                said = log.read().decode(errors="replace")
        lines = {what: said.count(f"profiling: {what} ") for what in ("stored", "NOT stored", "LOST")}
        print(f"  the service's log: {lines}")


def _wait_until_ready(url: str) -> None:
    give_up = threading.Event()
    timer = threading.Timer(_READY_SECONDS, give_up.set)
    timer.daemon = True
    timer.start()
    while not give_up.wait(0.1):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
    raise RuntimeError(f"the sample app did not answer at {url} within {_READY_SECONDS:g} s")


def slice_of(url: str, load: float, seconds: float) -> Side:
    """One load."""
    result = asyncio.run(run_load(url, rate=load, seconds=seconds))
    latencies = tuple(latency for path in result.paths for latency in path.latencies)
    return Side(latencies, result.failures + result.skipped)


def latency_ratio(pairs: list[Pair], share: float) -> float:
    """The latency that this share of all answers did not exceed, away by there."""
    away, there = ([latency for pair in pairs for latency in pair[side].latencies] for side in (0, 1))
    return _percentile(away, share) / _percentile(there, share)


def _percentile(values: list[float], share: float) -> float:
    values.sort()
    return values[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outage")
    parser.add_argument("--slices", type=int, default=40, help="away and there, together")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a slice")
    parser.add_argument("--load", type=float, default=60.0, help="requests a second")
    options = parser.parse_args()
    print(f"{options.slices} slices of {options.seconds:g} s at {options.load:g} requests/s; {machine()}", flush=True)
    with S3Server(buckets=[_BUCKET]) as s3:
        port = Port(urlsplit(s3.environ()["AWS_ENDPOINT_URL_S3"]).port or 80)
        port.open()
        pairs: list[Pair] = []
        with service(s3, port) as url:
            take = partial(slice_of, url, options.load)
            take(_WARM_UP_SECONDS)
            for _ in range(options.slices // 4):
                before = take(options.seconds)
                port.close()
                away = take(options.seconds), take(options.seconds)
                port.open()
                pairs += [Pair(away[0], before), Pair(away[1], take(options.seconds))]
    failures = sum(side.failures for pair in pairs for side in pair)
    answers = sum(len(pair.away.latencies) for pair in pairs)
    print(f"{answers} answers each way, {failures} failed or not sent; away by there (95 % interval)")
    for share in (0.5, 0.99):
        ratio = bootstrap(pairs, partial(latency_ratio, share=share), resamples=300)
        print(f"  p{100 * share:.0f} of latency {ratio.text()}")


if __name__ == "__main__":
    main()
