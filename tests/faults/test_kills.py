"""Killed at any moment, nothing that was on disk is lost, and nothing is torn."""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from integration_kit.fake_s3 import SLOW_DOWN, FakeS3
from integration_kit.pprof import read_pprof
from integration_kit.servers import clean_environ
from integration_kit.waiting import eventually

from profiling_middleware.waiting.capture_file import read_capture

VICTIM = Path(__file__).parent / "victim.py"
# The first window is over after one second, and the last kill comes in the third.
SOONEST_SECONDS, LATEST_SECONDS = 0.2, 2.8
SETTINGS = {
    "PROFILE_ENABLED": "1",
    "PROFILE_INTERVAL": "1s",
    "PROFILE_DURATION": "1s",
    "PROFILE_TYPES": "cpu,block,trace",
}


@contextmanager
def victim(store: FakeS3, home: Path, *seed: int) -> Iterator[subprocess.Popen[str]]:
    """One that has started; it is gone afterwards. Without a seed it is a calm one."""
    environ = clean_environ(home, {**store.settings(), **SETTINGS})
    with (home / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, str(VICTIM), *map(str, seed)],
            env=environ,
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        try:
            assert process.stdout.readline() == "started\n", (home / "log").read_text()
            yield process
        finally:
            process.kill()
            process.wait()


def spooled(home: Path) -> dict[str, bytes]:
    """What waits on disk, by capture id; every file that is one is whole."""
    found = {}
    for path in (home / "spool").glob("*/*"):
        if path.suffix in (".waiting", ".going"):
            artifact = read_capture(os.open(path, os.O_RDWR))
            body = artifact.read()
            gzip.decompress(body)
            found[artifact.info.capture_id] = body
    return found


def stored(store: FakeS3) -> dict[str, list[bytes]]:
    """What lies in the store, by capture id; a second time only where an answer was lost. All of it is whole."""
    found: dict[str, list[bytes]] = {}
    objects = dict(store.objects)  # first, as a put is known before its object
    ids = {put.key: put.headers["x-amz-meta-capture-id"] for put in list(store.requests)}
    for key, body in objects.items():
        if key.endswith(".pprof.gz"):
            read_pprof(body)
        else:
            gzip.decompress(body)
        found.setdefault(ids[key], []).append(body)
    return found


@pytest.mark.timeout(1800)
def test_what_was_on_disk_when_it_was_killed_gets_into_the_store(
    chance: random.Random, whole: bool, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    kills = 200 if whole else 10
    on_disk: dict[str, bytes] = {}
    states = {"writing": 0, "waiting": 0, "going": 0}
    with FakeS3() as store:
        store.takes_seconds = lambda: chance.uniform(0, 0.3)
        for number in range(kills):
            store.fault = SLOW_DOWN if chance.random() < 0.4 else None
            with victim(store, home, number) as process:
                time.sleep(chance.uniform(SOONEST_SECONDS, LATEST_SECONDS))
                process.send_signal(signal.SIGKILL)
                process.wait()
            on_disk |= spooled(home)
            names = [path.suffix for path in (home / "spool").glob("*/*")]
            states["writing"] += ".part" in names
            states["waiting"] += ".waiting" in names
            states["going"] += ".going" in names
        store.fault = None
        store.takes_seconds = lambda: 0.0
        with victim(store, home) as process:
            eventually(lambda: not set(on_disk) - set(stored(store)), "it is in the store", seconds=300)
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
        found = stored(store)
    print(f"{kills} kills; found {states}; {len(on_disk)} captures were on disk, {len(found)} are in the store")
    assert states["waiting"] > 0
    for capture_id, body in on_disk.items():
        assert set(found[capture_id]) == {body}
        assert len(found[capture_id]) <= 2
    left = sorted(path.name for path in (home / "spool").glob("*/*"))
    assert left == [], (home / "log").read_text()
    assert "LOST" not in (home / "log").read_text()
