"""What memory a trace takes while it is recorded under load, whatever the load.

`python -m benchmarks.trace_memory [--load 200,800] [--seconds 120] [--warm-up 30] [--paths /orders=1,…]`.

The sample app runs in one process and gets requests from this one on 127.0.0.1: first with nothing recorded until its
memory has grown to what the load alone takes, then while a trace is, with the detail of a window and with everything.
Told is the most resident memory in that time less the most before. The profiler and an S3 client's absence are in
both: it has been loaded, and has had a first window.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import Mapping

from benchmarks.pairs import machine
from benchmarks.service.handle import Service
from sample_app.load import run_load

_KINDS = ("trace", "trace-full")
_LIGHT = {"/orders": 4, "/checkout": 4, "/fanout": 3, "/upstream": 3, "/health": 3, "/stream": 2}
_PAUSE_SECONDS = 0.25
_CONNECTIONS = 256
"""At 800 requests/s a hundred are under way at once."""
_MEBIBYTE = 2**20


def main() -> None:
    """Each detail at each load in a process of its own."""
    options = _parser().parse_args()
    print(f"most resident memory in {options.seconds:g} s of a trace less the most before; {machine()}")
    for load in options.load:
        for kind in _KINDS:
            with Service(serve=True, rate=100, engine="auto") as service:
                before, _ = _loaded(service, load, options.warm_up, options.paths)
                service.on(f"capture {kind}", options.seconds)
                during, answered = _loaded(service, load, options.seconds, options.paths)
                service.off(f"capture {kind}")
            grown = (during - before) / _MEBIBYTE
            print(f"{kind}, {load:g} requests/s: {grown:+.1f} MiB on {before / _MEBIBYTE:.0f}, {answered} answered")


def _loaded(service: Service, load: float, seconds: float, mix: Mapping[str, int]) -> tuple[int, int]:
    """The most resident memory while it is under load, and how many requests were answered."""
    most, over = 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(_PAUSE_SECONDS):
            most = max(most, service.memory())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        result = asyncio.run(run_load(service.url, rate=load, seconds=seconds, mix=mix, connections=_CONNECTIONS))
    finally:
        over.set()
        looking.join()
    return most, result.requests - result.failures


def _paths(text: str) -> dict[str, int]:
    return {path: int(weight) for path, _, weight in (entry.partition("=") for entry in text.split(","))}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace_memory", description="What a trace takes.")
    loads = [200.0, 800.0]
    parser.add_argument("--load", type=lambda text: [float(one) for one in text.split(",")], default=loads)
    parser.add_argument("--seconds", type=float, default=120.0, help="of a trace")
    parser.add_argument("--warm-up", type=float, default=30.0, help="seconds under the same load before")
    parser.add_argument("--paths", type=_paths, default=_LIGHT, metavar="/PATH=WEIGHT,…", help="what is asked for")
    return parser


if __name__ == "__main__":
    main()
