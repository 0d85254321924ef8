"""Files that are not to be in the way of a program's standard streams."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from profiling_middleware.descriptors import open_to_read, opener

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_file_is_read_and_not_inherited(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    descriptor = open_to_read(str(path))
    try:
        assert descriptor > 2
        assert not os.get_inheritable(descriptor)
        assert os.read(descriptor, 20) == b"content"
    finally:
        os.close(descriptor)
    with open(path, encoding="ascii", opener=opener) as file:
        assert file.read() == "content"
    with pytest.raises(FileNotFoundError):
        open_to_read(str(tmp_path / "none"))


def test_it_takes_no_number_of_a_stream_that_is_closed(run_python: RunPython) -> None:
    ran = run_python(
        """
import os
from profiling_middleware.descriptors import open_to_read
saved = os.dup(2)
for closed in ((0,), (1, 2), (0, 1, 2)):
    for number in (0, 1, 2):
        os.dup2(saved, number)
    before = set(os.listdir("/proc/self/fd"))
    for number in closed:
        os.close(number)
    descriptor = open_to_read("/dev/null")
    assert descriptor > 2, descriptor
    os.close(descriptor)
    for number in closed:
        try:
            os.fstat(number)
        except OSError:
            pass
        else:
            os.write(saved, b"taken")
    for number in (0, 1, 2):
        os.dup2(saved, number)
    assert set(os.listdir("/proc/self/fd")) == before
"""
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)


def test_sampling_takes_none_either(run_python: RunPython, need_native: Callable[[], None]) -> None:
    """A program that closes its streams and opens /dev/null in their place, as a daemon does, keeps that."""
    need_native()
    ran = run_python(
        """
import ctypes, os, threading, time  # ctypes: what a thread imports later reads files by number, too
from profiling_middleware import Profiler, Settings
profiler, done = Profiler(Settings(engine="polling", sample_rate=1000, max_overhead=1.0)), threading.Event()

def capture():
    while not done.is_set():
        for one in [profiler.record(kind, 0.02, upload=False) for kind in ("cpu", "wall", "block")]:
            one.result.result()

for one in [profiler.record(kind, 0.02, upload=False) for kind in ("cpu", "wall", "block")]:
    one.result.result()  # what is imported is read by now
thread = threading.Thread(target=capture)
thread.start()
until, taken, lost, times = time.monotonic() + 3, 0, 0, 0
while time.monotonic() < until:
    times += 1
    try:
        os.close(0)
    except OSError:
        lost += 1
    time.sleep(0.0005)
    null = os.open("/dev/null", os.O_RDWR)
    taken += null != 0
    try:
        os.dup2(null, 0)
    except OSError:  # EBUSY: another thread opens a file at this moment
        lost += 1
    if null:
        os.close(null)
    time.sleep(0.0005)
done.set()
thread.join()
profiler.stop()
# A file is there for microseconds before it is moved away: once in a thousand times or so it is met.
assert times > 500 and max(taken, lost) <= times / 100, (times, taken, lost)
"""
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)
