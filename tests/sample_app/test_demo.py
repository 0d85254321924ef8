"""The demo's verdict: what has arrived, and whether it is what it should be."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from sample_app import demo
from sample_app.demo_store import Arrivals, format_arrivals
from sample_app.s3_server import S3Server

CPU = "profiles/sample-app/cpu/2026-01-26/15-30-{:02}.pprof.gz"
# One nameless sample type and the string table; one sample; 2 s as the duration.
FRAME, SAMPLE, TWO_SECONDS = b"\x0a\x00\x32\x00", b"\x12\x03\x12\x01\x01", b"\x50\x80\xa8\xd6\xb9\x07"
PROFILE = gzip.compress(FRAME + SAMPLE + TWO_SECONDS)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


class Bucket:
    """An empty bucket and the arrivals in it."""

    def __init__(self, s3: S3Server, directory: Path) -> None:
        self._name = f"demo-{uuid4()}"
        self._client = s3.client()
        s3.create_bucket(self._name)
        self.arrivals = Arrivals(self._client, self._name, directory)

    def put(self, key: str, body: bytes) -> None:
        self._client.put_object(Bucket=self._name, Key=key, Body=body)


@pytest.fixture
def bucket(s3: S3Server, tmp_path: Path) -> Bucket:
    return Bucket(s3, tmp_path)


@pytest.mark.s3
def test_each_object_arrives_once(bucket: Bucket) -> None:
    bucket.put(CPU.format(0), PROFILE)
    assert [(new.key, new.size, new.kind) for new in bucket.arrivals.look()] == [(CPU.format(0), len(PROFILE), "cpu")]

    bucket.put(CPU.format(15), PROFILE)
    assert [new.key for new in bucket.arrivals.look()] == [CPU.format(15)]
    assert bucket.arrivals.look() == []
    assert bucket.arrivals.problems() == []


@pytest.mark.s3
def test_a_trace_is_for_perfetto_and_has_to_be_whole(bucket: Bucket) -> None:
    key, trace = CPU.format(0).replace("/cpu/", "/trace/").replace(".pprof.gz", ".trace.gz"), gzip.compress(b"trace")
    bucket.put(key, trace)
    (arrived,) = bucket.arrivals.look()
    assert (arrived.kind, arrived.problem) == ("trace", None)
    assert "ui.perfetto.dev" in format_arrivals([arrived])

    bucket.put(key.replace("-00.", "-15."), trace[:-4])
    assert [new.problem for new in bucket.arrivals.look()] == ["the trace is no gzip"]


@pytest.mark.s3
def test_the_copies_are_what_arrived(bucket: Bucket) -> None:
    bucket.put(CPU.format(0), PROFILE)

    (new,) = bucket.arrivals.look()

    assert new.file.read_bytes() == PROFILE


@pytest.mark.s3
def test_the_newest_is_the_last_that_is_long_enough(bucket: Bucket) -> None:
    for second, body in ((0, PROFILE), (15, PROFILE), (30, FRAME + SAMPLE)):
        bucket.put(CPU.format(second), body)
    bucket.arrivals.look()

    newest = bucket.arrivals.newest("cpu", 1.5)

    assert newest is not None
    assert newest.key == CPU.format(15)
    assert bucket.arrivals.newest("wall", 1.5) is None


@pytest.mark.s3
def test_nothing_is_a_problem(bucket: Bucket) -> None:
    bucket.arrivals.look()

    assert bucket.arrivals.problems() == ["no object arrived in the store"]


@pytest.mark.s3
@pytest.mark.parametrize(
    ("body", "problem"),
    [(b"<Error/>", "not a profile"), (FRAME + TWO_SECONDS, "no samples")],
    ids=["unreadable", "empty"],
)
def test_one_bad_object_is_a_problem_and_named(bucket: Bucket, body: bytes, problem: str) -> None:
    bucket.put(CPU.format(0), PROFILE)
    bucket.put(CPU.format(15), body)
    bucket.arrivals.look()

    (told,) = bucket.arrivals.problems()

    assert told.startswith(CPU.format(15))
    assert problem in told


@pytest.mark.s3
def test_a_window_that_the_end_cut_short_may_be_empty(bucket: Bucket) -> None:
    bucket.put(CPU.format(0), FRAME)
    bucket.arrivals.look()

    assert bucket.arrivals.problems() == []


@pytest.mark.s3
def test_the_table_tells_samples_seconds_and_what_is_wrong(bucket: Bucket) -> None:
    bucket.put(CPU.format(0), PROFILE)
    bucket.put(CPU.format(15), b"<Error/>")
    bucket.arrivals.look()

    _, good, bad = format_arrivals(bucket.arrivals.seen).splitlines()

    assert good.split() == [CPU.format(0), "cpu", str(len(PROFILE)), "1", "2.0"]
    assert "not a profile" in bad


@pytest.mark.parametrize("text", ["soon", "0", "-5", "inf", "nan"])
def test_demo_seconds_that_are_none_are_refused(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEMO_SECONDS", text)

    assert demo.main() == 1
    assert f"DEMO_SECONDS = {text!r}" in capsys.readouterr().err
