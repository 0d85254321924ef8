"""pyroscope-io, in both its implementations; what it pushes goes to a server in the same process.

The request is a push.v1.PushRequest (https://github.com/grafana/pyroscope/blob/main/api/push/v1/push.proto): field 1
a series, in it field 2 a sample, in it field 1 a pprof.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.truth.profilers.base import Profiler, Seen, without_module
from benchmarks.truth.profilers.pprof import all_of
from benchmarks.truth.profilers.receiver import receiver
from sample_app.pprof_reader import read_pprof
from sample_app.protobuf_wire import read_fields

_SUFFIX = ".push"


def pyroscope(name: str, implementation: str) -> Profiler:
    """`implementation` is the name in its ProfilerImplementation; all else as delivered."""
    return Profiler(
        name=name,
        missing=without_module("pyroscope"),
        recording=lambda directory, rate, seconds: _recording(directory, rate, implementation),
        read=_read,
        own=("/pyroscope/", "/benchmarks/truth/profilers/receiver.py", "/http/server.py", "/socketserver.py"),
    )


@contextmanager
def _recording(directory: Path, rate: int, implementation: str) -> Iterator[None]:
    agent = importlib.import_module("pyroscope")
    with receiver(directory, _SUFFIX) as address:
        begun = agent.configure(
            application_name="benchmark",
            server_address=address,
            sample_rate=rate,
            cpu_implementation=getattr(agent.ProfilerImplementation, implementation),
        )
        if not begun:
            raise RuntimeError("pyroscope did not begin")
        yield
        agent.shutdown()


def _read(directory: Path) -> list[Seen]:
    profiles = [
        read_pprof(_content(raw))
        for posted in sorted(directory.glob(f"*{_SUFFIX}"))
        for series in _inner(posted.read_bytes(), 1)
        for sample in _inner(series, 2)
        for raw in _inner(sample, 1)
    ]
    return all_of((profile for profile in profiles if profile.sample_types[0].type == "cpu"), "cpu", None)


def _inner(message: bytes, number: int) -> list[bytes]:
    return [_content(value) for field, value in read_fields(message) if field == number]


def _content(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("there is a number where a message should be: this is no PushRequest")
    return value
