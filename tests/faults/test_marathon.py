"""Hundreds of windows, the store away half of the time: memory, threads, descriptors and files stay as they were."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from integration_kit.fake_s3 import SLOW_DOWN, FakeS3
from integration_kit.pprof import read_pprof
from integration_kit.servers import clean_environ

MARATHON = Path(__file__).parent / "marathon.py"
KINDS = ("cpu", "block", "mutex", "trace")
# What is learnt once (names, stacks, the chunks of a trace) has been learnt by then.
LEARNT_WINDOWS = 300
GROWTH_BYTES_A_WINDOW = 4096


def come_and_go(store: FakeS3, over: threading.Event) -> None:
    """Away for half of the time."""
    while not over.wait(1.0):
        store.fault = None if store.fault else SLOW_DOWN
    store.fault = None


@pytest.mark.timeout(900)
def test_nothing_grows_with_the_number_of_windows(whole: bool, tmp_path: Path) -> None:
    windows = 500 if whole else 60
    home = tmp_path / "home"
    (home / "tmp").mkdir(parents=True)
    over = threading.Event()
    with FakeS3() as store:
        weather = threading.Thread(target=come_and_go, args=(store, over))
        weather.start()
        environ = clean_environ(
            home,
            {**store.settings(), "PROFILE_ENABLED": "1", "PROFILE_INTERVAL": "1h", "TMPDIR": str(home / "tmp")},
        )
        run = subprocess.Popen(
            [sys.executable, str(MARATHON), str(windows)], env=environ, stdout=subprocess.PIPE, text=True, cwd=home
        )
        with run:
            assert run.stdout is not None
            lines: list[dict[str, Any]] = []
            for line in run.stdout:
                lines.append(json.loads(line))
                if lines[-1].get("windows") == windows:
                    over.set()
        weather.join()
    assert run.returncode == 0
    counts, states = lines.pop()["status"], lines
    _print(states, counts)
    # The first window of the schedule itself may have ended, too.
    assert counts["taken"] == counts["stored"] in (windows * len(KINDS), (windows + 1) * len(KINDS))
    assert counts["dropped"] == counts["waiting"] == counts["failed"] == 0
    assert counts["failures"] > 0
    for key, body in store.objects.items():
        if key.endswith(".pprof.gz"):
            read_pprof(body)
    first, last = states[min(len(states) - 2, LEARNT_WINDOWS // 10)], states[-1]
    for what in ("threads", "descriptors", "files", "temporary"):
        assert last[what] <= first[what] + 1, (what, first, last)
    if whole:
        assert _growth(states[LEARNT_WINDOWS // 10 :]) < GROWTH_BYTES_A_WINDOW


def _growth(states: list[dict[str, Any]]) -> float:
    """Bytes a window, the median of all slopes between two states (Theil and Sen): one that is off does not count."""
    return statistics.median(
        (later["rss"] - earlier["rss"]) / (later["windows"] - earlier["windows"])
        for number, earlier in enumerate(states)
        for later in states[number + 1 :]
    )


def _print(states: list[dict[str, Any]], counts: dict[str, int]) -> None:
    for state in states[:: max(1, len(states) // 10)]:
        print({**state, "rss": f"{state['rss'] / 2**20:.1f} MiB"})
    print(counts, f"growth {_growth(states[len(states) // 5 :]):.0f} bytes a window")
