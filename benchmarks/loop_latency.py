"""`python -m benchmarks.loop_latency`: what an event loop notices while a window is encoded, gzipped and put.

A timer of 1 ms runs on the loop, in turn at rest and while the real pipeline takes a window of 5,000 stacks, 40
frames deep, to a real S3 server. Printed is the timer's 99th percentile, and the ratio of the two.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from benchmarks.statistics import percentile, spread
from profiling_middleware.keys import new_capture_id
from profiling_middleware.model import CaptureInfo, Frame, Label, Profile, ProfileSample, Stack, ValueType
from profiling_middleware.pipeline import Pipeline, Request, Result
from profiling_middleware.stores.s3 import S3Store
from profiling_middleware.uploads import Uploads
from profiling_middleware.waiting.backlog import Backlog
from profiling_middleware.waiting.memory import Memory
from sample_app.s3_server import S3Server

BUCKET = "benchmark"
ROUNDS = 15
STACKS, DEPTH, FUNCTIONS = 5_000, 40, 2_000


def big_window() -> Profile:
    """A window as a large service leaves it."""
    dice = random.Random(1)
    frames = [Frame(f"shop.module{n % 50}.function{n}", f"/srv/shop/module{n % 50}.py", n, n) for n in range(FUNCTIONS)]
    samples = [
        ProfileSample(
            Stack(tuple(dice.choices(frames, k=DEPTH))), (Label("thread", f"worker {n % 40}"),), (1, 10_000_000)
        )
        for n in range(STACKS)
    ]
    nanoseconds = ValueType("cpu", "nanoseconds")
    return Profile(
        info=CaptureInfo(
            kind="cpu",
            service="benchmark",
            instance="host-1-0",
            capture_id=new_capture_id(),
            started_ns=time.time_ns(),
            trigger="periodic",
        ),
        sample_types=(ValueType("samples", "count"), nanoseconds),
        period_type=nanoseconds,
        period=10_000_000,
        duration_ns=120_000_000_000,
        samples=samples,
    )


async def timer_until(done: Callable[[], bool]) -> list[float]:
    """Milliseconds that a timer of 1 ms really took, each time, until `done`."""
    taken = []
    while not done():
        started = time.perf_counter()
        await asyncio.sleep(0.001)
        taken.append((time.perf_counter() - started) * 1000)
    return taken


async def compare(put_window: Callable[[], Callable[[], bool]]) -> None:
    """Rest and work in turn, equally long."""
    rest_p99, work_p99, seconds = [], [], []
    for number in range(ROUNDS + 1):
        started = time.monotonic()
        work = await timer_until(put_window())
        lasted = time.monotonic() - started
        end = time.monotonic() + lasted
        rest = await timer_until(lambda end=end: time.monotonic() >= end)  # type: ignore[misc]
        if number:  # the first put makes the connection
            rest_p99.append(percentile(rest, 0.99))
            work_p99.append(percentile(work, 0.99))
            seconds.append(lasted)
    print(f"a window of {STACKS} stacks, {DEPTH} deep; median (middle half) of {ROUNDS} rounds")
    print(f"  encoded and put within            {spread(seconds)} s")
    print(f"  p99 of a 1 ms timer at rest       {spread(rest_p99)} ms")
    print(f"  p99 meanwhile                     {spread(work_p99)} ms")
    print(f"  ratio                             {spread([w / r for w, r in zip(work_p99, rest_p99, strict=True)])}")


def main() -> None:
    """Runs against an S3 server of its own."""
    with S3Server(buckets=[BUCKET]) as server:
        os.environ.update(server.environ())
        logger = logging.getLogger("benchmark")
        uploads = Uploads(S3Store(BUCKET, None), Backlog(None, Memory(), logger), logger, lambda seconds, action: None)
        pipeline = Pipeline(uploads, logger)
        pipeline.keep_thread()
        uploads.keep_thread()
        window = big_window()

        def put_window() -> Callable[[], bool]:
            result: Future[Result] = Future()
            before = uploads.counts.stored
            pipeline.submit(window, Request(upload=True, own_key_only=False), result)
            return lambda: uploads.counts.stored > before or uploads.counts.failures > 0

        run: Awaitable[None] = compare(put_window)
        asyncio.run(run)  # type: ignore[arg-type]
        assert uploads.counts.failures == 0, uploads.counts.last_failure
        assert threading.active_count() < 10


if __name__ == "__main__":
    main()
