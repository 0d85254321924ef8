"""Encode, gzip, put: the one road to a store."""

from __future__ import annotations

import gzip
import logging
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from profiling_middleware.encoders import pprof
from profiling_middleware.encoders.pprof import encode_pprof
from profiling_middleware.model import CaptureInfo, Frame, Profile, ProfileSample, Stack
from profiling_middleware.pipeline import Pipeline, QueueFull, Request, Result
from profiling_middleware.uploads import Uploads
from profiling_middleware.waiting.backlog import Backlog
from profiling_middleware.waiting.memory import Memory

MakeProfile = Callable[..., Profile]
MakeInfo = Callable[..., CaptureInfo]

PERIODIC = Request(upload=True, own_key_only=False)
ON_DEMAND = Request(upload=True, own_key_only=True)
KEPT_OUT = Request(upload=False, own_key_only=True)


@pytest.fixture
def uploads(store: Any, logger: logging.Logger) -> Uploads:
    return Uploads(store, Backlog(None, Memory(), logger), logger, lambda seconds, action: None)


@pytest.fixture
def pipeline(uploads: Uploads, logger: logging.Logger) -> Pipeline:
    return Pipeline(uploads, logger)


@pytest.fixture
def run(pipeline: Pipeline, deadline: float) -> Callable[[Profile, Request], Result]:
    """Sends a profile down the road and waits for its bytes."""

    def submit(profile: Profile, request: Request) -> Result:
        result: Future[Result] = Future()
        pipeline.submit(profile, request, result)
        return result.result(deadline)

    return submit


@pytest.fixture
def free_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of encoding is the one thing in the bytes that differs from run to run."""
    monkeypatch.setattr(pprof.time, "thread_time_ns", lambda: 0)


@pytest.fixture
def large(make_profile: MakeProfile) -> Profile:
    """A profile that takes several milliseconds to encode."""
    samples = [
        ProfileSample(
            Stack(tuple(Frame(f"app.f{n}.g{k}", f"/srv/{n}.py", k, 1) for k in range(20))), (), (n, n * 10**6)
        )
        for n in range(150)
    ]
    return make_profile(samples=samples)


class Blocked(Future[Result]):
    """A result that holds the pipeline's thread while it is being set."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.begun, self.go_on, self._deadline = threading.Event(), threading.Event(), deadline

    def set_result(self, result: Result) -> None:
        self.begun.set()
        assert self.go_on.wait(self._deadline)
        super().set_result(result)


def test_the_body_is_the_gzipped_pprof_message(
    run: Any, make_profile: MakeProfile, free_encoding: None, uploads: Uploads, deadline: float
) -> None:
    result = run(make_profile(), KEPT_OUT)

    assert gzip.decompress(result.artifact.body) == b"".join(encode_pprof(make_profile()))


def test_the_gzip_header_has_no_time_and_no_name(run: Any, make_profile: MakeProfile) -> None:
    body = run(make_profile(), KEPT_OUT).artifact.body

    assert body[:4] == b"\x1f\x8b\x08\x00"  # magic, deflate, no flags: no name, no comment
    assert body[4:8] == b"\x00\x00\x00\x00"  # mtime


def test_the_body_is_one_gzip_member_and_nothing_else(run: Any, large: Profile) -> None:
    body = run(large, KEPT_OUT).artifact.body

    unpacker = zlib.decompressobj(31)
    unpacker.decompress(body)
    assert unpacker.eof
    assert unpacker.unused_data == b""


def test_the_same_profile_gives_the_same_bytes(run: Any, large: Profile, free_encoding: None) -> None:
    bodies = {run(large, KEPT_OUT).artifact.body for _ in range(3)}

    assert len(bodies) == 1


def test_the_bytes_do_not_depend_on_how_often_the_encoder_rests(
    run: Any, pipeline: Pipeline, large: Profile, free_encoding: None, deadline: float
) -> None:
    resting = run(large, KEPT_OUT).artifact.body

    pipeline.drain(deadline)
    hurried = run(large, KEPT_OUT).artifact.body

    assert resting == hurried
    assert pipeline.drain(deadline)


def test_a_periodic_capture_wants_the_shared_key_and_knows_its_own(run: Any, make_profile: MakeProfile) -> None:
    artifact = run(make_profile(), PERIODIC).artifact

    assert artifact.key == "profiles/watcher/cpu/2026-01-26/15-30-00.pprof.gz"
    assert artifact.own_key == ("profiles/watcher/cpu/2026-01-26/15-30-00_web-1-7-0a1b2c3d-0123456789abcdef.pprof.gz")


def test_a_capture_on_demand_has_only_its_own_key(run: Any, make_profile: MakeProfile) -> None:
    artifact = run(make_profile(), ON_DEMAND).artifact

    assert artifact.key == artifact.own_key
    assert "_web-1-7-0a1b2c3d-0123456789abcdef" in artifact.key


def test_what_is_answered_is_what_is_stored(
    run: Any, make_profile: MakeProfile, uploads: Uploads, store: Any, deadline: float
) -> None:
    artifact = run(make_profile(), PERIODIC).artifact
    uploads.finish(deadline)

    assert store.content == {artifact.key: artifact.body}


def test_a_capture_that_is_kept_out_of_the_store_does_not_reach_it(
    run: Any, make_profile: MakeProfile, uploads: Uploads, store: Any, deadline: float
) -> None:
    run(make_profile(), KEPT_OUT)
    uploads.finish(deadline)

    assert store.asked == []


def test_without_a_store_a_capture_is_answered_all_the_same(
    logger: logging.Logger, make_profile: MakeProfile, deadline: float
) -> None:
    result: Future[Result] = Future()

    Pipeline(None, logger).submit(make_profile(), ON_DEMAND, result)

    assert result.result(deadline).artifact.body


def test_two_captures_of_one_second_are_both_stored(
    run: Any, make_profile: MakeProfile, make_info: MakeInfo, uploads: Uploads, store: Any, deadline: float
) -> None:
    one, other = (
        run(make_profile(info=make_info(capture_id=identifier * 8)), PERIODIC).artifact for identifier in ("aa", "bb")
    )
    uploads.finish(deadline)

    assert store.content == {one.key: one.body, other.own_key: other.body}


def test_a_view_is_rendered_beside_the_capture(
    run: Any, make_profile: MakeProfile, uploads: Uploads, store: Any, deadline: float
) -> None:
    result = run(make_profile(), Request(upload=True, own_key_only=True, view="text"))
    uploads.finish(deadline)

    assert b"shop.cart.Cart.total" in result.view
    assert store.content == {result.artifact.key: result.artifact.body}


def test_without_a_view_none_is_rendered(run: Any, make_profile: MakeProfile) -> None:
    assert run(make_profile(), ON_DEMAND).view is None


def test_everything_happens_on_the_pipelines_own_thread(
    pipeline: Pipeline, make_profile: MakeProfile, deadline: float
) -> None:
    result: Future[Result] = Future()
    names: list[str] = []
    result.add_done_callback(lambda _: names.append(threading.current_thread().name))

    pipeline.submit(make_profile(), KEPT_OUT, result)

    result.result(deadline)
    assert pipeline.drain(deadline)
    assert names == ["profiling-encode"]


def test_an_answer_does_not_wait_behind_a_put_that_hangs(run: Any, make_profile: MakeProfile, store: Any) -> None:
    store.open.clear()

    one, other = run(make_profile(), ON_DEMAND), run(make_profile(), ON_DEMAND)

    assert one.artifact.body
    assert other.artifact.body
    assert store.content == {}


def test_a_profile_that_cannot_be_encoded_is_answered_counted_and_logged_and_the_next_one_is_taken(
    pipeline: Pipeline, run: Any, make_profile: MakeProfile, deadline: float, caplog: pytest.LogCaptureFixture
) -> None:
    result: Future[Result] = Future()
    pipeline.submit(make_profile(sample_types=()), PERIODIC, result)

    assert isinstance(result.exception(deadline), IndexError)
    assert pipeline.dropped == 1
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "profiling: kind=cpu capture=0123456789abcdef not encoded")
    ]
    assert run(make_profile(), KEPT_OUT).artifact.body


def test_a_capture_whose_view_fails_is_stored_and_not_counted_as_lost(
    pipeline: Pipeline, make_profile: MakeProfile, uploads: Uploads, store: Any, deadline: float
) -> None:
    result: Future[Result] = Future()

    pipeline.submit(make_profile(), Request(upload=True, own_key_only=True, view="flamegraph"), result)

    assert isinstance(result.exception(deadline), KeyError)
    uploads.finish(deadline)
    assert len(store.content) == 1
    assert pipeline.dropped == 0


def test_more_captures_than_fit_are_refused_counted_and_logged(
    pipeline: Pipeline, make_profile: MakeProfile, deadline: float, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = Blocked(deadline)
    pipeline.submit(make_profile(), KEPT_OUT, blocked)
    assert blocked.begun.wait(deadline)

    results: list[Future[Result]] = [Future() for _ in range(66)]
    for result in results:
        pipeline.submit(make_profile(), KEPT_OUT, result)
    refused = [result for result in results if result.done()]
    blocked.go_on.set()

    assert pipeline.drain(deadline)
    assert refused == results[64:]
    assert all(isinstance(result.exception(0), QueueFull) for result in refused)
    assert all(result.result(0).artifact.body for result in results[:64])
    assert pipeline.dropped == 2
    assert (
        caplog.messages
        == ["profiling: kind=cpu capture=0123456789abcdef dropped: 64 captures wait to be encoded already"] * 2
    )


def test_drain_is_false_when_the_time_was_not_enough(
    pipeline: Pipeline, make_profile: MakeProfile, deadline: float
) -> None:
    blocked = Blocked(deadline)
    pipeline.submit(make_profile(), KEPT_OUT, blocked)
    assert blocked.begun.wait(deadline)

    assert pipeline.drain(0.01) is False

    blocked.go_on.set()
    assert pipeline.drain(deadline) is True


def test_captures_submitted_during_a_pause_are_encoded_after_it(
    pipeline: Pipeline, make_profile: MakeProfile, deadline: float
) -> None:
    result: Future[Result] = Future()
    pipeline.pause(deadline)
    pipeline.submit(make_profile(), KEPT_OUT, result)

    assert not result.done()
    pipeline.resume()
    assert result.result(deadline).artifact.body
    assert pipeline.drain(deadline)


def test_while_it_encodes_the_gil_is_let_go_of_at_least_every_millisecond(
    run: Any, make_profile: MakeProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts the rests of a long encoding: each stands for at most a fraction of a millisecond of work."""
    rests: list[float] = []
    monkeypatch.setattr("profiling_middleware.pipeline.time.sleep", rests.append)
    samples = [
        ProfileSample(Stack(tuple(Frame(f"app.f{n}.g{k}", f"/srv/{n}.py", k, 1) for k in range(20))), (), (n, n))
        for n in range(400)
    ]

    content = gzip.decompress(run(make_profile(samples=samples), KEPT_OUT).artifact.body)

    cost = float(content.rpartition(b"cost of encoding: ")[2].partition(b" ms")[0])
    assert len(rests) >= cost
