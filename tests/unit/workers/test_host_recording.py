"""One capture of several workers: each of them asked, and whatever can become of one of them."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from profiling_middleware.config import Settings
from profiling_middleware.encoders.pprof_reader import read_pprof, unzip_pprof
from profiling_middleware.keys import own_key
from profiling_middleware.model import Profile
from profiling_middleware.pipeline import QueueFull
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.recorder import MAX_ON_DEMAND
from profiling_middleware.recording import CaptureCancelled, TooManyCaptures
from profiling_middleware.workers import call, listener
from profiling_middleware.workers.here import NoSuchWorker
from profiling_middleware.workers.host_recording import HostRecording, NoAnswer
from profiling_middleware.workers.meeting import Meeting, Worker
from profiling_middleware.workers.messages import Question, to_frame

from .conftest import DEADLINE, UNTIL_TOLD, MakeWorker, OneWorker, wait_until

ME = os.getpid()


def merged(recording: HostRecording) -> Profile:
    body = recording.result.result(DEADLINE).artifact.read()
    return read_pprof(unzip_pprof(body, 1 << 20), recording.info)


def pids(profile: Profile) -> set[str | int]:
    return {label.value for sample in profile.samples for label in sample.labels if label.key == "pid"}


@pytest.fixture
def asker(make_worker: MakeWorker) -> OneWorker:
    return make_worker(1)


# -- what is there ----------------------------------------------------------------------------------------------------


def test_all_are_asked_the_same_at_once_and_all_their_parts_are_in_it(
    asker: OneWorker, make_worker: MakeWorker
) -> None:
    others = [make_worker(11), make_worker(12), make_worker(13)]
    question = Question(kind="cpu", seconds=2.5, full=False)
    own = asker.record()
    recording = asker.ask(own, question=question)
    parts = [other.asked() for other in others]  # nobody has ended when the last is asked
    for part in (*parts, own):
        part.end()

    profile = merged(recording)
    assert pids(profile) == {ME, 11, 12, 13}
    assert sum(sample.values[1] for sample in profile.samples) == 4 * 40_000_000
    assert recording.summary == "4 of 4"
    assert "workers: 4 of 4" in profile.comments
    assert {f"worker pid {pid}: instance: web-{pid}-0a1b2c3d" for pid in (11, 12, 13)}.isdisjoint(profile.comments)
    assert [other.questions for other in others] == [[question]] * 3
    artifact = recording.result.result().artifact
    assert artifact.key == own_key(recording.info)
    assert recording.info.started_ns == own.info.started_ns
    assert recording.info.capture_id != own.info.capture_id


def test_one_process_alone_is_asked(asker: OneWorker, make_worker: MakeWorker) -> None:
    one, other = make_worker(11), make_worker(12)
    recording = asker.ask(None, pid=12)
    other.asked().end()

    assert pids(merged(recording)) == {12}
    assert recording.summary == "1 of 1"
    assert one.questions == []


def test_a_process_id_that_nobody_has_is_refused_with_those_that_there_are(
    asker: OneWorker, make_worker: MakeWorker
) -> None:
    make_worker(11)
    with pytest.raises(NoSuchWorker, match=rf"has pid 12: there are 11, {ME}$"):
        asker.ask(None, pid=12)


def test_one_that_does_not_listen_says_that_there_may_be_others(make_worker: MakeWorker) -> None:
    asker = make_worker(1, listens=False)
    own = asker.record()
    recording = asker.ask(own)
    own.end()

    assert pids(merged(recording)) == {ME}
    assert recording.summary == "1 of 1 (those that do not listen are not in it: PROFILE_ENABLED)"


def test_a_process_with_a_door_is_not_found_twice(
    asker: OneWorker, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_worker(11)
    monkeypatch.setattr(THIS_PROCESS, "aliases", {one.instance})
    other = make_worker(12, listens=False)
    other.workers.listen(enabled=True)
    own = other.record()
    recording = other.ask(own)
    asker.asked().end()
    own.end()

    assert pids(merged(recording)) == {ME, 1}
    assert recording.summary == "2 of 2"
    assert one.questions == []
    assert other.workers.since_ns is None


def test_without_others_there_is_the_own_part(asker: OneWorker) -> None:
    own = asker.record()
    recording = asker.ask(own)
    own.end()

    assert pids(merged(recording)) == {ME}
    assert recording.summary == "1 of 1"


def test_traces_are_put_one_behind_the_other(asker: OneWorker, make_worker: MakeWorker) -> None:
    other = make_worker(11)
    own = asker.record()
    own.info, own.body = replace(own.info, kind="trace"), gzip.compress(b"own", 0)
    recording = asker.ask(own, question=Question(kind="trace", seconds=1.0))
    part = other.asked()
    part.body = gzip.compress(b" other" * 500_000, 0)  # a file at both ends
    part.end()
    own.end()

    assert gzip.decompress(recording.result.result(DEADLINE).artifact.read()) == b"own" + b" other" * 500_000


def test_what_ended_before_its_time_is_named(asker: OneWorker, make_worker: MakeWorker) -> None:
    other = make_worker(11)
    own = asker.record()
    recording = asker.ask(own)
    other.asked().end("SIGTERM")
    own.end()

    assert pids(merged(recording)) == {ME, 11}
    assert recording.summary == "2 of 2 (partial: pid 11: SIGTERM)"


# -- what is not there ------------------------------------------------------------------------------------------------


def check_missing(recording: HostRecording, why: str) -> None:
    """Its part is missing, and that is all."""
    profile = merged(recording)
    assert pids(profile) == {ME}
    assert recording.summary == f"1 of 2 (missing: pid 11: {why})"
    assert f"workers: {recording.summary}" in profile.comments


def test_one_that_fails_costs_its_part(asker: OneWorker, make_worker: MakeWorker) -> None:
    other = make_worker(11)
    own = asker.record()
    recording = asker.ask(own)
    other.asked().result.set_exception(ZeroDivisionError("a secret"))
    own.end()

    check_missing(recording, "failed (ZeroDivisionError)")


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (TooManyCaptures("8 captures are running"), "8 captures are running"),
        (ValueError("seconds = None"), "seconds = None"),
        (ZeroDivisionError("a secret"), "failed (ZeroDivisionError)"),
    ],
    ids=["busy", "refused", "broken"],
)
def test_one_that_refuses_costs_its_part(
    asker: OneWorker, make_worker: MakeWorker, refusal: Exception, why: str
) -> None:
    make_worker(11).refusal = refusal
    own = asker.record()
    recording = asker.ask(own)
    own.end()

    check_missing(recording, why)


def test_the_own_part_may_be_what_is_missing(asker: OneWorker, make_worker: MakeWorker) -> None:
    other = make_worker(11)
    own = asker.record()
    recording = asker.ask(own)
    own.result.set_exception(QueueFull())
    other.asked().end()

    assert pids(merged(recording)) == {11}
    assert recording.summary == f"1 of 2 (missing: pid {ME}: failed (QueueFull))"


def test_if_nobody_has_anything_that_is_said(asker: OneWorker, make_worker: MakeWorker) -> None:
    other = make_worker(11)
    recording = asker.ask(None, pid=11)
    other.asked().result.set_exception(QueueFull())

    with pytest.raises(NoAnswer, match=r"0 of 1 \(missing: pid 11: failed \(QueueFull\)\)"):
        recording.result.result(DEADLINE)


def test_a_part_that_is_no_profile_costs_its_part(asker: OneWorker, make_worker: MakeWorker) -> None:
    other = make_worker(11)
    own = asker.record()
    recording = asker.ask(own)
    part = other.asked()
    part.body = gzip.compress(b"\xff\xff")
    part.end()
    own.end()

    check_missing(recording, "a number has no end")


def test_a_part_that_is_too_big_is_not_received(make_worker: MakeWorker) -> None:
    other, small = make_worker(11), make_worker(2, spool_max_bytes=1 << 20)
    own = small.record()
    recording = small.ask(own)
    part = other.asked()
    part.body = bytes((1 << 20) + 1)
    part.end()
    own.end()

    check_missing(recording, "has 1048577 bytes, and 1048576 are allowed (PROFILE_SPOOL_MAX_BYTES)")


# -- others that are no workers ---------------------------------------------------------------------------------------

Answer = Callable[[socket.socket], object]


@pytest.fixture
def impostor(settings: Settings) -> Iterator[Callable[[Answer], None]]:
    """Listens as the worker of pid 11, reads a question and answers as a test says."""
    with contextlib.ExitStack() as closing:

        def pretend(answer: Answer) -> None:
            meeting = Meeting(settings)
            closing.callback(meeting.close)
            listening = meeting.listen(Worker(pid=11, instance="web-11-0a1b2c3d", enabled=True, started_ns=1))
            closing.callback(listening.close)

            def serve() -> None:
                listening.setblocking(True)
                connection, _ = listening.accept()
                closing.callback(connection.close)
                connection.recv(4096)
                with contextlib.suppress(OSError):
                    answer(connection)

            thread = threading.Thread(target=serve)
            thread.start()
            closing.callback(thread.join)

        yield pretend


BEGUN = to_frame({"begun": True})


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda it: it.shutdown(socket.SHUT_RDWR), "ended before it began"),
        (lambda it: (it.send(BEGUN), it.shutdown(socket.SHUT_RDWR)), "ended"),
        (
            lambda it: (it.send(BEGUN + to_frame({"size": 10}) + b"12345"), it.shutdown(socket.SHUT_RDWR)),
            "ended",
        ),
        (lambda it: it.send(b"HTTP/1.1 200 OK\r\n\r\n"), "answered with a frame of 1213486160 bytes"),
        (lambda it: it.send(b"\0\0\0\2[]"), "answered with a frame that is no object"),
        (lambda it: it.send(to_frame({"size": 10})), "answered with something else than a capture"),
        (lambda it: it.send(BEGUN + BEGUN), "answered with something else than a capture"),
        (lambda it: it.send(BEGUN + to_frame({"size": True})), "answered with something else than a capture"),
        (lambda it: it.send(BEGUN + to_frame({"size": -1})), "answered with something else than a capture"),
        (lambda it: it.send(to_frame({"error": "no\r\nX-Evil: 1"})), "no X-Evil: 1"),
    ],
    ids=["hangs up", "dies", "dies sending", "http", "list", "size first", "twice", "bool", "negative", "error"],
)
def test_what_is_no_answer_costs_its_part(
    asker: OneWorker, impostor: Callable[[Answer], None], answer: Answer, why: str
) -> None:
    impostor(answer)
    own = asker.record()
    recording = asker.ask(own)
    own.end()

    check_missing(recording, why)


@pytest.mark.parametrize(
    ("bound", "sends", "why"),
    [
        ("BEGIN_SECONDS", b"", "did not begin within 0.05 s"),
        ("GRACE_SECONDS", BEGUN, "did not answer in time"),
        ("GRACE_SECONDS", BEGUN + to_frame({"size": 10}) + b"12345", "did not answer in time"),
    ],
    ids=["at all", "capture", "all of it"],
)
def test_who_does_not_answer_in_time_costs_its_part(
    asker: OneWorker,
    impostor: Callable[[Answer], None],
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    sends: bytes,
    why: str,
) -> None:
    monkeypatch.setattr(call, bound, 0.05)
    impostor(lambda it: it.sendall(sends))
    own = asker.record()
    recording = asker.ask(own, question=Question(kind="cpu", seconds=0.01))
    own.end()

    check_missing(recording, why)


# -- questions that are none ------------------------------------------------------------------------------------------


def connected(settings: Settings, instance: str) -> socket.socket:
    meeting = Meeting(settings)
    connection = meeting.connect(instance)
    meeting.close()
    assert connection is not None
    connection.settimeout(DEADLINE)
    return connection


def received(connection: socket.socket) -> bytes:
    with connection:
        data = b""
        while block := connection.recv(4096):
            data += block
        return data


@pytest.mark.parametrize(
    "question",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\2[]", to_frame({}), to_frame({"version": 99}), b"\0\0\x20\0"],
    ids=["http", "list", "empty", "version", "long"],
)
def test_what_is_no_question_is_refused_and_the_worker_goes_on(
    asker: OneWorker, make_worker: MakeWorker, settings: Settings, question: bytes
) -> None:
    other = make_worker(11)
    connection = connected(settings, other.instance)
    connection.sendall(question)

    assert b'{"error": ' in received(connection)
    assert other.questions == []
    recording = asker.ask(None, pid=11)
    other.asked().end()
    assert pids(merged(recording)) == {11}


def test_who_asks_nothing_is_hung_up_on(
    make_worker: MakeWorker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "QUESTION_SECONDS", 0.05)
    other = make_worker(11)

    assert received(connected(settings, other.instance)) == b""


def test_who_does_not_take_an_answer_is_hung_up_on(
    make_worker: MakeWorker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "PROGRESS_SECONDS", 0.05)
    other = make_worker(11)
    connection = connected(settings, other.instance)
    connection.sendall(UNTIL_TOLD.frame())
    part = other.asked()
    part.body = bytes(10 << 20)
    part.end()
    wait_until(lambda: other.workers._visits.wait_until_over(0))

    assert len(received(connection)) < 10 << 20


def test_only_so_many_are_answered_at_once(
    make_worker: MakeWorker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "MAX_VISITS", 1)
    other = make_worker(11)
    first = connected(settings, other.instance)
    first.sendall(UNTIL_TOLD.frame())
    other.asked()
    second = connected(settings, other.instance)
    with contextlib.suppress(OSError), second:
        second.sendall(UNTIL_TOLD.frame())
        assert second.recv(100) == b""
    first.close()

    assert len(other.questions) == 1


# -- ends -------------------------------------------------------------------------------------------------------------


def test_a_client_that_leaves_ends_all_parts(asker: OneWorker, make_worker: MakeWorker) -> None:
    other = make_worker(11)
    own = asker.record()
    recording = asker.ask(own)
    part = other.asked()
    recording.cancel()

    with pytest.raises(CaptureCancelled):
        recording.result.result(DEADLINE)
    assert own.cancelled.is_set()
    assert part.cancelled.wait(DEADLINE)


def test_an_end_before_its_time_is_everyones(asker: OneWorker, make_worker: MakeWorker) -> None:
    other = make_worker(11)
    own = asker.record()
    recording = asker.ask(own)
    part = other.asked()
    asker.workers.end_all("SIGTERM")

    profile = merged(recording)
    assert pids(profile) == {ME, 11}
    assert (own.ended_early, part.ended_early) == (["SIGTERM"], ["SIGTERM"])
    assert "partial: SIGTERM" in profile.comments


def test_at_a_stop_it_makes_do_with_what_there_is(asker: OneWorker, make_worker: MakeWorker) -> None:
    other = make_worker(11)
    own = asker.record()
    recording = asker.ask(own)
    part = other.asked()
    own.end()
    assert asker.workers.finish(0.0)

    check_missing(recording, "had not answered when this one stopped")
    assert part.cancelled.wait(DEADLINE)


def test_a_worker_that_leaves_answers_whom_it_has_heard_and_nobody_else(
    asker: OneWorker, make_worker: MakeWorker
) -> None:
    other = make_worker(11)
    recording = asker.ask(None, pid=11)
    part = other.asked()
    other.workers.leave()
    with pytest.raises(NoSuchWorker):
        asker.ask(None, pid=11)
    assert other.workers.since_ns is None
    part.end()

    assert pids(merged(recording)) == {11}


def test_a_worker_that_leaves_begins_nothing(make_worker: MakeWorker, settings: Settings) -> None:
    other = make_worker(11)
    connection = connected(settings, other.instance)
    wait_until(lambda: not other.workers._visits.wait_until_over(0))
    other.workers.leave()
    connection.sendall(UNTIL_TOLD.frame())

    assert b'{"error": "stops"}' in received(connection)
    assert other.questions == []


def test_so_many_captures_of_several_workers_and_no_more(asker: OneWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    owns = [asker.record() for _ in range(MAX_ON_DEMAND)]
    recordings = [asker.ask(own) for own in owns]
    with pytest.raises(TooManyCaptures):
        asker.ask(asker.record())
    owns[0].end()
    merged(recordings[0])
    again = asker.record()
    recording = asker.ask(again)
    for own in (*owns[1:], again):
        own.end()
    assert pids(merged(recording)) == {ME}


def test_a_directory_that_cannot_be_used_is_said_and_costs_only_the_others(
    make_worker: MakeWorker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    worker = make_worker(11, listens=False, spool_dir=tmp_path / "file")
    worker.workers.listen(enabled=True)
    own = worker.record()
    recording = worker.ask(own)
    own.end()

    assert pids(merged(recording)) == {ME}
    assert "1 of 2 (missing: pid 0: the workers' directory cannot be used" in recording.summary
    assert "other workers cannot reach this one" in caplog.text
