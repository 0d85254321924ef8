"""A steady load on a service on this machine: `python -m sample_app.load http://127.0.0.1:8000 --rate 30`.

Requests are sent when they are due, whether or not earlier ones have been answered (an open loop): a service that
stalls does not slow the load down, and the time that requests then wait counts as theirs. They are due at random
moments, as those of independent visitors are, so that some come at once: the same moments in every run.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import itertools
import random
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from sample_app.http_connection import HttpConnection, HttpError
from sample_app.load_result import LoadRecorder, LoadResult, format_result

DEFAULT_MIX: Mapping[str, int] = {
    "/hot": 6,
    "/orders": 4,
    "/checkout": 4,
    "/fanout": 3,
    "/upstream": 3,
    "/health": 3,
    "/report": 2,
    "/stream": 2,
    "/mistake": 1,
}
DEFAULT_RATE = 30.0
CONNECTIONS = 32
WAITING = 256
"""How many requests may wait for a connection; what is due beyond that is not sent."""
TOGETHER = 10
"""So many requests share the time that they take at the load's rate, each at a random moment of it."""
REQUEST_SECONDS = 10.0
"""A request that has no answer so long after it was due has failed."""


async def run_load(
    url: str,
    *,
    rate: float = DEFAULT_RATE,
    seconds: float | None = 10.0,
    mix: Mapping[str, int] = DEFAULT_MIX,
    connections: int = CONNECTIONS,
    stop: asyncio.Event | None = None,
) -> LoadResult:
    """Send `rate` requests a second until the time is over (None: never) or `stop` is set.

    Which path comes when is random, and the same in every run; how many come in the time of `TOGETHER` requests is not.
    ValueError for a URL or mix that cannot be used.
    """
    host, port = loopback_address(url)
    if not rate > 0:
        raise ValueError(f"a rate of {rate:g} requests a second is not above 0")
    if not mix or not all(path.startswith("/") and weight > 0 for path, weight in mix.items()):
        raise ValueError("a mix needs paths that start with '/', each with a weight above 0")
    recorder = LoadRecorder(mix)
    due: asyncio.Queue[tuple[float, str]] = asyncio.Queue(WAITING)
    started = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(_work(host, port, due, recorder)) for _ in range(connections)]
        sender = group.create_task(_put_when_due(due, rate, seconds, mix, recorder))
        stopper = group.create_task((stop or asyncio.Event()).wait())
        await asyncio.wait((sender, stopper), return_when=asyncio.FIRST_COMPLETED)
        elapsed = asyncio.get_running_loop().time() - started
        sender.cancel()
        stopper.cancel()
        await due.join()
        for worker in workers:
            worker.cancel()
    return recorder.result(elapsed)


def loopback_address(url: str) -> tuple[str, int]:
    """Host and port of a service on this machine. ValueError for any other: a load is no thing to send elsewhere."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise ValueError(f"{url!r} is no address: write http://127.0.0.1:8000")
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(f"{parts.hostname!r} is another machine: only 127.0.0.1, ::1 and localhost get this load")
    return host, parts.port or 80


async def _put_when_due(
    due: asyncio.Queue[tuple[float, str]],
    rate: float,
    seconds: float | None,
    mix: Mapping[str, int],
    recorder: LoadRecorder,
) -> None:
    clock = asyncio.get_running_loop().time
    paths, weights = list(mix), list(mix.values())
    chosen = random.Random(0)
    started = clock()
    for offset in _arrivals(rate):
        if seconds is not None and offset >= seconds:
            return
        await asyncio.sleep(started + offset - clock())
        try:
            due.put_nowait((started + offset, chosen.choices(paths, weights)[0]))
        except asyncio.QueueFull:
            recorder.skip()


def _arrivals(rate: float) -> Iterator[float]:
    """When requests are due, in seconds from the start, in order, without end."""
    chosen = random.Random(1)
    for number in itertools.count(step=TOGETHER):
        yield from sorted((number + TOGETHER * chosen.random()) / rate for _ in range(TOGETHER))


async def _work(host: str, port: int, due: asyncio.Queue[tuple[float, str]], recorder: LoadRecorder) -> None:
    clock = asyncio.get_running_loop().time
    connection = HttpConnection(host, port)
    try:
        while True:
            due_at, path = await due.get()
            try:
                async with asyncio.timeout_at(due_at + REQUEST_SECONDS):
                    status = await connection.get(path)
            except (HttpError, TimeoutError) as error:
                recorder.failed(path, str(error) or f"{path}: no answer within {REQUEST_SECONDS:g} s")
            else:
                if status < 400:
                    recorder.answered(path, clock() - due_at)
                else:
                    recorder.failed(path, f"{path}: status {status}")
            due.task_done()
    finally:
        connection.abort()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a load and print what it saw; 1 when a request failed or none was answered."""
    parser = argparse.ArgumentParser(
        prog="python -m sample_app.load", description="A steady load on a service on this machine."
    )
    parser.add_argument("url", help="such as http://127.0.0.1:8000")
    parser.add_argument("--rate", type=float, default=DEFAULT_RATE, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="for how long; 0: until it is stopped")
    parser.add_argument(
        "--paths", type=_mix, default=DEFAULT_MIX, metavar="/PATH=WEIGHT,…", help="what to ask for, how often"
    )
    options = parser.parse_args(arguments)
    try:
        result = asyncio.run(_until_signalled(options.url, options.rate, options.seconds or None, options.paths))
    except ValueError as error:
        parser.error(str(error))
    print(format_result(result))
    return 0 if result.requests and not result.failures else 1


async def _until_signalled(url: str, rate: float, seconds: float | None, mix: Mapping[str, int]) -> LoadResult:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await run_load(url, rate=rate, seconds=seconds, mix=mix, stop=stop)


def _mix(text: str) -> dict[str, int]:
    mix: dict[str, int] = {}
    for part in text.split(","):
        path, _, weight = part.strip().partition("=")
        mix[path] = int(weight or "1")
    return mix


if __name__ == "__main__":
    sys.exit(main())
