"""The way to a store, and what waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiling_middleware.model import Artifact
from profiling_middleware.private_directory import PrivateDirectory
from profiling_middleware.private_file import PrivateFile
from profiling_middleware.stores import StoreError
from profiling_middleware.threads import OwnThread
from profiling_middleware.uploads import Uploads
from profiling_middleware.waiting.backlog import Backlog
from profiling_middleware.waiting.capture_file import size_of
from profiling_middleware.waiting.memory import MAX_BYTES, Memory
from profiling_middleware.waiting.spool import Spool

MakeArtifact = Callable[..., Artifact]
AWAY = StoreError("S3 was not reached: check the network")


class Retries:
    """Takes the retries that are planned, so that a test decides when they run."""

    def __init__(self, deadline: float) -> None:
        self.planned: list[tuple[float, Callable[[], object]]] = []
        self._changed = threading.Condition()
        self._deadline = deadline

    def __call__(self, seconds: float, action: Callable[[], object]) -> None:
        with self._changed:
            self.planned.append((seconds, action))
            self._changed.notify_all()

    def take(self) -> Callable[[], object]:
        """The next retry, once there is one."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.planned, self._deadline)
            return self.planned.pop(0)[1]

    def wait(self) -> float:
        """In how many seconds the next retry is to be."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.planned, self._deadline)
            return self.planned[0][0]


@pytest.fixture
def retries(deadline: float) -> Retries:
    return Retries(deadline)


@pytest.fixture
def uploads(store: Any, logger: logging.Logger, retries: Retries) -> Uploads:
    return Uploads(store, Backlog(None, Memory(1000), logger), logger, retries)


@pytest.fixture
def settled(uploads: Uploads, deadline: float) -> Callable[[], None]:
    """Waits until everything that was queued has been tried; finish() would be the end of the uploads."""

    def wait() -> None:
        assert uploads._lane.drain(deadline)

    return wait


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at exit since Python 3.12."""

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(OwnThread, "start", refused)


@pytest.fixture(autouse=True)
def opened_again(store: Any) -> Iterator[None]:
    yield
    store.open.set()


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_capture_is_stored_under_its_key(
    uploads: Uploads, store: Any, settled: Any, make_artifact: MakeArtifact, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = make_artifact(1, size=30)

    uploads.add(artifact)
    settled()

    assert store.content == {artifact.key: artifact.body}
    assert uploads.waiting == (0, 0)
    counts = uploads.counts
    assert (counts.stored, counts.stored_bytes, counts.failures, counts.dropped) == (1, 30, 0, 0)
    assert counts.last_key == artifact.key
    (stored,) = counts.last_stored
    assert (stored.key, stored.kind, stored.size) == (artifact.key, "cpu", 30)
    assert abs(stored.stored_ns - time.time_ns()) < 60e9


def test_the_last_ten_that_were_stored_are_remembered_the_newest_first(
    uploads: Uploads, settled: Any, make_artifact: MakeArtifact
) -> None:
    for number in range(12):
        uploads.add(make_artifact(number))
        settled()

    assert [stored.key for stored in uploads.counts.last_stored] == [
        f"profiles/watcher/cpu/{number}.pprof.gz" for number in range(11, 1, -1)
    ]


def test_one_line_says_what_was_stored_where(
    uploads: Uploads, settled: Any, make_artifact: MakeArtifact, caplog: pytest.LogCaptureFixture
) -> None:
    uploads.add(make_artifact(1, size=30))
    settled()

    (line,) = caplog.messages
    assert line.startswith("profiling: stored kind=cpu key=profiles/watcher/cpu/1.pprof.gz bytes=30 seconds=0.")
    assert line.endswith(" in memory://store")


def test_a_capture_that_finds_its_key_taken_goes_under_its_own(
    uploads: Uploads, store: Any, settled: Any, make_artifact: MakeArtifact
) -> None:
    artifact = make_artifact(1)
    store.content[artifact.key] = b"of another process"

    uploads.add(artifact)
    settled()

    assert store.content == {artifact.key: b"of another process", artifact.own_key: artifact.body}
    assert (uploads.counts.stored, uploads.counts.last_key) == (1, artifact.own_key)


def test_an_own_key_that_is_taken_means_that_the_capture_is_stored(
    uploads: Uploads, store: Any, settled: Any, make_artifact: MakeArtifact
) -> None:
    artifact = make_artifact(1)
    store.content |= {artifact.key: b"of another process", artifact.own_key: artifact.body}

    uploads.add(artifact)
    settled()

    assert store.asked == [artifact.key, artifact.own_key]
    assert (uploads.counts.stored, uploads.counts.failures, uploads.waiting) == (1, 0, (0, 0))


def test_a_capture_that_has_only_its_own_key_tries_no_second_one(
    uploads: Uploads, store: Any, settled: Any, make_artifact: MakeArtifact
) -> None:
    artifact = make_artifact(1, key="profiles/watcher/cpu/1_own.pprof.gz")
    store.content[artifact.own_key] = artifact.body

    uploads.add(artifact)
    settled()

    assert store.asked == [artifact.own_key]
    assert (uploads.counts.stored, uploads.counts.last_key) == (1, artifact.own_key)


def test_a_capture_whose_answer_was_lost_is_kept_under_one_key_more_and_never_lost(
    uploads: Uploads, store: Any, settled: Any, retries: Retries, make_artifact: MakeArtifact
) -> None:
    """It was stored, the answer was lost, and the retry meets its own object."""
    artifact = make_artifact(1)
    store.refusals, store.answers_get_lost = [AWAY], True

    uploads.add(artifact)
    retries.take()()
    settled()

    assert store.content == {artifact.key: artifact.body, artifact.own_key: artifact.body}
    assert (uploads.counts.stored, uploads.counts.failures, uploads.waiting) == (1, 1, (0, 0))


def test_a_lost_answer_for_an_own_key_stores_the_capture_once(
    uploads: Uploads, store: Any, settled: Any, retries: Retries, make_artifact: MakeArtifact
) -> None:
    artifact = make_artifact(1, key="profiles/watcher/cpu/1_own.pprof.gz")
    store.refusals, store.answers_get_lost = [AWAY], True

    uploads.add(artifact)
    retries.take()()
    settled()

    assert store.content == {artifact.own_key: artifact.body}
    assert (uploads.counts.stored, uploads.counts.failures) == (1, 1)


def test_a_failure_under_the_own_key_is_a_failure(
    uploads: Uploads, store: Any, retries: Retries, settled: Any, make_artifact: MakeArtifact
) -> None:
    artifact = make_artifact(1)
    store.content[artifact.key] = b"of another process"
    store.refused_keys[artifact.own_key] = AWAY

    uploads.add(artifact)
    retries.wait()
    settled()

    assert (uploads.counts.stored, uploads.counts.failures, uploads.waiting) == (0, 1, (1, 10))


# -- failure and retry ------------------------------------------------------------------------------------------------


def test_what_could_not_be_stored_waits(
    uploads: Uploads, store: Any, retries: Retries, settled: Any, make_artifact: MakeArtifact
) -> None:
    store.refusals = [AWAY]

    uploads.add(make_artifact(1, size=70))
    retries.wait()
    settled()

    assert uploads.waiting == (1, 70)
    assert (uploads.counts.stored, uploads.counts.failures, uploads.counts.dropped) == (0, 1, 0)
    assert uploads.counts.last_failure == "S3 was not reached: check the network"
    (failure,) = uploads.failures.last
    assert (failure.what, failure.reason, failure.times) == ("upload", uploads.counts.last_failure, 1)


def test_a_capture_that_is_lost_is_among_the_failures(uploads: Uploads, make_artifact: MakeArtifact) -> None:
    uploads.add(make_artifact(1, size=2000))  # more than the memory holds

    (failure,) = uploads.failures.last
    assert (failure.what, failure.reason, failure.times) == ("lost", "memory for waiting captures is full", 1)


def test_what_waits_on_disk_is_told_apart_from_what_waits_in_memory(
    store: Any, retries: Retries, logger: logging.Logger, tmp_path: Path, make_artifact: MakeArtifact, deadline: float
) -> None:
    directory = tmp_path / "spool"
    room = size_of(make_artifact(1, size=70))

    def open_spool() -> Spool:
        return Spool(PrivateDirectory(directory), "me", room, lambda: make_artifact(1).info.started_ns)

    uploads = Uploads(store, Backlog(open_spool, Memory(1000), logger), logger, retries)
    assert (uploads.spooled, uploads.spool_trouble, uploads.waiting_place) == ((0, 0), None, "memory")
    store.refusals = [AWAY]
    uploads.add(make_artifact(1, size=70))
    retries.wait()
    uploads.add(make_artifact(2, size=300))  # does not fit in there

    assert (uploads.spooled, uploads.waiting) == ((1, room), (2, room + 300))
    assert uploads.waiting_place == str(directory)
    uploads.finish(deadline)


def test_a_spool_that_cannot_be_used_says_why(
    store: Any, retries: Retries, logger: logging.Logger, make_artifact: MakeArtifact, deadline: float
) -> None:
    def open_spool() -> Spool:
        raise OSError(28, "No space left on device")

    uploads = Uploads(store, Backlog(open_spool, Memory(1000), logger), logger, retries)
    store.refusals = [AWAY]
    uploads.add(make_artifact(1, size=70))
    retries.wait()

    assert (uploads.spool_trouble, uploads.waiting_place) == ("No space left on device", "memory")
    assert (uploads.spooled, uploads.waiting) == ((0, 0), (1, 70))
    uploads.finish(deadline)


def test_one_line_says_what_failed_with_kind_key_bytes_seconds_and_outlook(
    uploads: Uploads,
    store: Any,
    retries: Retries,
    settled: Any,
    make_artifact: MakeArtifact,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.refusals = [AWAY]

    uploads.add(make_artifact(1, size=70))
    seconds = retries.wait()
    settled()

    (record,) = caplog.records
    assert record.levelname == "ERROR"
    line = record.getMessage()
    assert line.startswith("profiling: NOT stored kind=cpu key=profiles/watcher/cpu/1.pprof.gz bytes=70 seconds=0.")
    assert " in memory://store: S3 was not reached: check the network; " in line
    assert line.endswith(f"; 1 captures (70 B) wait in memory, next try in {seconds:.0f} s")


def test_every_failure_of_any_kind_is_one_line_and_ends_nothing(
    uploads: Uploads,
    store: Any,
    retries: Retries,
    settled: Any,
    make_artifact: MakeArtifact,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.refusals = [ZeroDivisionError("division by zero"), AWAY, None]

    uploads.add(make_artifact(1))
    for _ in range(2):
        retries.take()()
    settled()

    assert len([line for line in caplog.messages if "NOT stored" in line]) == 2
    assert "ZeroDivisionError: division by zero" in caplog.messages[0]
    assert (uploads.counts.failures, uploads.counts.stored, uploads.waiting) == (2, 1, (0, 0))


def test_the_seconds_of_a_failure_are_those_it_took(
    uploads: Uploads,
    store: Any,
    retries: Retries,
    settled: Any,
    make_artifact: MakeArtifact,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.refusals = [AWAY]
    store.open.clear()
    uploads.add(make_artifact(1))
    store.wait_for_puts(1)
    since = time.monotonic()

    while time.monotonic() - since < 0.06:
        pass
    store.open.set()
    retries.wait()
    settled()

    seconds = float(caplog.messages[0].partition("seconds=")[2].split()[0])
    assert 0.06 <= seconds < 5


def test_a_retry_stores_what_waits_and_what_came_meanwhile(
    uploads: Uploads, store: Any, settled: Any, retries: Retries, make_artifact: MakeArtifact
) -> None:
    store.refusals = [AWAY]
    first, second = make_artifact(1), make_artifact(2)
    uploads.add(first)
    retries.wait()

    uploads.add(second)
    retries.take()()
    settled()

    assert store.content == {first.key: first.body, second.key: second.body}
    assert (uploads.counts.stored, uploads.waiting) == (2, (0, 0))


def test_while_a_retry_is_due_new_captures_do_not_ask_the_store(
    uploads: Uploads, store: Any, settled: Any, retries: Retries, make_artifact: MakeArtifact
) -> None:
    store.refusals = [AWAY] * 10
    uploads.add(make_artifact(1))
    retries.wait()

    for number in range(2, 7):
        uploads.add(make_artifact(number))
    settled()

    assert len(store.asked) == 1
    assert uploads.waiting == (6, 60)


def test_a_failure_ends_the_round_because_the_others_would_meet_the_same_fault(
    uploads: Uploads, store: Any, settled: Any, retries: Retries, make_artifact: MakeArtifact
) -> None:
    store.open.clear()
    store.refusals = [None, AWAY, None]
    for number in range(3):
        uploads.add(make_artifact(number))
    store.open.set()
    retries.wait()
    settled()

    assert len(store.asked) == 2
    assert uploads.waiting == (2, 20)


def test_a_capture_that_the_store_always_refuses_does_not_stop_the_others(
    uploads: Uploads, store: Any, settled: Any, retries: Retries, make_artifact: MakeArtifact
) -> None:
    bad, good = make_artifact(1), make_artifact(2)
    store.refused_keys[bad.key] = AWAY
    uploads.add(bad)
    retries.wait()
    uploads.add(good)

    for _ in range(3):
        retries.take()()
    retries.wait()
    settled()

    assert store.content == {good.key: good.body}
    assert uploads.waiting == (1, 10)


def test_what_is_refused_for_its_own_sake_keeps_no_other_from_the_store(
    uploads: Uploads, store: Any, retries: Retries, settled: Any, make_artifact: MakeArtifact
) -> None:
    """However many there are: each is tried once a round."""
    too_large = StoreError("S3 answered 413", of_capture=True)
    store.refused_keys = {make_artifact(number).key: too_large for number in range(5)}
    store.open.clear()
    for number in range(5):
        uploads.add(make_artifact(number))
    store.wait_for_puts(1)
    uploads.add(make_artifact(5))
    store.open.set()
    settled()

    assert set(store.content) == {make_artifact(5).key}
    assert sorted(store.asked) == [make_artifact(number).key for number in range(6)]
    assert len(retries.planned) == 1
    retries.take()()
    settled()
    assert len(store.asked) == 11
    uploads.finish(0)


def test_at_exit_without_a_thread_what_is_safe_is_not_tried(
    store: Any,
    retries: Retries,
    logger: logging.Logger,
    tmp_path: Path,
    make_artifact: MakeArtifact,
    deadline: float,
    no_thread: None,
) -> None:
    """Who exits would wait for each put."""

    def open_spool() -> Spool:
        return Spool(PrivateDirectory(tmp_path / "spool"), "me", 10_000, lambda: make_artifact(1).info.started_ns)

    uploads = Uploads(store, Backlog(open_spool, Memory(100_000), logger), logger, retries)
    uploads.add(make_artifact(1))
    uploads.add(make_artifact(2, size=20_000))  # in memory

    uploads.finish(deadline)

    assert store.asked == [make_artifact(2).key]


def test_who_exits_waits_no_longer_than_for_the_put_that_hangs(
    uploads: Uploads, store: Any, make_artifact: MakeArtifact, caplog: pytest.LogCaptureFixture, no_thread: None
) -> None:
    for number in (1, 2, 3):
        uploads.add(make_artifact(number))

    uploads.finish(0.0)

    assert store.asked == []
    assert [line for line in caplog.messages if "LOST" in line and "did not answer in time" in line]


def test_the_pauses_between_tries_grow_to_five_minutes_and_no_further(
    uploads: Uploads, store: Any, settled: Any, retries: Retries, make_artifact: MakeArtifact
) -> None:
    store.refusals = [AWAY] * 12
    uploads.add(make_artifact(1))

    pauses = []
    for _ in range(12):
        pauses.append(retries.wait())
        retries.take()()
    settled()

    for number, pause in enumerate(pauses):
        longest = min(300.0, 5.0 * 2**number)
        assert longest / 2 <= pause <= longest
    assert uploads.counts.stored == 1


def test_after_a_success_the_pauses_begin_anew(
    uploads: Uploads, store: Any, settled: Any, retries: Retries, make_artifact: MakeArtifact
) -> None:
    store.refusals = [AWAY, AWAY, AWAY, None, AWAY]
    uploads.add(make_artifact(1))
    for _ in range(3):
        retries.take()()
    settled()

    uploads.add(make_artifact(2))

    assert retries.wait() <= 5.0


def test_a_fleet_does_not_retry_in_step(
    store: Any, logger: logging.Logger, deadline: float, make_artifact: Any
) -> None:
    store.refusals = [AWAY] * 20
    pauses = set()
    for number in range(20):
        retries = Retries(deadline)
        Uploads(store, Backlog(None, Memory(), logger), logger, retries).add(make_artifact(number))
        pauses.add(retries.wait())

    assert len(pauses) > 10


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_sixteen_mebibytes_may_wait() -> None:
    assert MAX_BYTES == 16 * 1024 * 1024


def test_the_newest_16_mib_stay_and_each_drop_is_logged_and_counted(
    store: Any, logger: logging.Logger, retries: Retries, make_artifact: MakeArtifact, caplog: pytest.LogCaptureFixture
) -> None:
    store.refusals = [AWAY] * 2
    uploads = Uploads(store, Backlog(None, Memory(), logger), logger, retries)
    mebibyte = 1024 * 1024
    uploads.add(make_artifact(0, size=mebibyte))
    retries.wait()

    for number in range(1, 20):
        uploads.add(make_artifact(number, size=mebibyte))

    assert uploads.waiting == (16, 16 * mebibyte)
    assert uploads.counts.dropped == 4
    lost = [line for line in caplog.messages if "LOST" in line]
    assert lost == [
        f"profiling: LOST kind=cpu key=profiles/watcher/cpu/{number}.pprof.gz bytes=1048576: "
        "memory for waiting captures is full"
        for number in range(4)
    ]
    retries.take()()
    uploads.finish(10)
    assert sorted(store.content) == sorted(f"profiles/watcher/cpu/{number}.pprof.gz" for number in range(4, 20))


def test_the_oldest_by_their_start_go_first_whatever_their_place_in_the_queue(
    uploads: Uploads, store: Any, retries: Retries, make_artifact: MakeArtifact
) -> None:
    store.refusals = [AWAY]
    uploads.add(make_artifact(9, size=400))
    retries.wait()

    uploads.add(make_artifact(3, size=400))
    uploads.add(make_artifact(5, size=400))
    retries.take()()
    uploads.finish(10)

    assert sorted(store.content) == ["profiles/watcher/cpu/5.pprof.gz", "profiles/watcher/cpu/9.pprof.gz"]


def test_a_capture_larger_than_the_bound_is_dropped_and_nothing_else(
    uploads: Uploads, store: Any, retries: Retries, make_artifact: MakeArtifact, caplog: pytest.LogCaptureFixture
) -> None:
    store.refusals = [AWAY]
    uploads.add(make_artifact(1, size=500))
    retries.wait()

    uploads.add(make_artifact(2, size=1001))

    assert uploads.counts.dropped == 1
    assert uploads.waiting == (1, 500)
    assert "key=profiles/watcher/cpu/2.pprof.gz" in caplog.messages[-1]


def test_what_waits_in_a_file_takes_no_memory(
    uploads: Uploads, store: Any, retries: Retries, make_artifact: MakeArtifact
) -> None:
    store.refusals = [AWAY]
    uploads.add(make_artifact(1, size=1000))
    retries.wait()
    trace = PrivateFile()
    trace.append(b"x" * 5000)

    uploads.add(replace(make_artifact(2, size=1), body=trace))

    assert (uploads.waiting, uploads.counts.dropped) == ((2, 6000), 0)


def test_exactly_the_bound_may_wait(
    uploads: Uploads, store: Any, retries: Retries, make_artifact: MakeArtifact
) -> None:
    store.refusals = [AWAY]

    uploads.add(make_artifact(1, size=1000))
    retries.wait()

    assert (uploads.waiting, uploads.counts.dropped) == ((1, 1000), 0)


def test_captures_of_many_threads_are_all_stored(
    store: Any, logger: logging.Logger, retries: Retries, make_artifact: MakeArtifact, deadline: float
) -> None:
    uploads = Uploads(store, Backlog(None, Memory(), logger), logger, retries)
    callers = [
        threading.Thread(target=lambda first=first: [uploads.add(make_artifact(first + n)) for n in range(50)] and None)
        for first in range(0, 400, 50)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(deadline)

    uploads.finish(deadline)

    assert len(store.content) == 400
    assert uploads.counts.stored == 400


# -- the end ----------------------------------------------------------------------------------------------------------


def test_finish_tries_everything_once_more(
    uploads: Uploads, store: Any, retries: Retries, make_artifact: MakeArtifact, deadline: float
) -> None:
    store.refusals = [AWAY]
    uploads.add(make_artifact(1))
    retries.wait()
    uploads.add(make_artifact(2))

    uploads.finish(deadline)

    assert len(store.content) == 2
    assert (uploads.counts.stored, uploads.counts.dropped, uploads.waiting) == (2, 0, (0, 0))


def test_finish_tries_the_others_too_when_the_store_refuses_one(
    uploads: Uploads, store: Any, retries: Retries, make_artifact: MakeArtifact, deadline: float
) -> None:
    bad, good = make_artifact(1), make_artifact(2)
    store.refused_keys[bad.key] = AWAY
    uploads.add(bad)
    retries.wait()
    uploads.add(good)

    uploads.finish(deadline)

    assert store.content == {good.key: good.body}
    assert (uploads.counts.stored, uploads.counts.dropped) == (1, 1)


def test_finish_gives_up_what_the_store_refuses_and_says_so(
    uploads: Uploads, store: Any, make_artifact: MakeArtifact, deadline: float, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = make_artifact(1, size=70)
    store.refused_keys[artifact.key] = AWAY
    uploads.add(artifact)

    uploads.finish(deadline)

    assert (uploads.counts.dropped, uploads.waiting) == (1, (0, 0))
    assert caplog.messages[-1] == (
        "profiling: LOST kind=cpu key=profiles/watcher/cpu/1.pprof.gz bytes=70: "
        "the service stops and the store refused it"
    )


def test_finish_returns_within_its_bound_when_the_store_hangs(
    uploads: Uploads, store: Any, make_artifact: MakeArtifact, caplog: pytest.LogCaptureFixture
) -> None:
    store.open.clear()
    uploads.add(make_artifact(1))
    uploads.add(make_artifact(2))
    store.wait_for_puts(1)

    since = time.monotonic()
    uploads.finish(0.1)
    took = time.monotonic() - since

    assert 0.1 <= took < 1
    assert uploads.waiting == (0, 0)
    assert [line for line in caplog.messages if "LOST" in line] == [
        f"profiling: LOST kind=cpu key=profiles/watcher/cpu/{number}.pprof.gz bytes=10: "
        "the service stops and the store did not answer in time"
        for number in (1, 2)
    ]
    assert uploads.counts.dropped == 2


def test_finish_plans_no_retry(
    uploads: Uploads, store: Any, retries: Retries, make_artifact: MakeArtifact, deadline: float
) -> None:
    artifact = make_artifact(1)
    store.refused_keys[artifact.key] = AWAY
    store.open.clear()
    uploads.add(artifact)
    threading.Timer(0.05, store.open.set).start()

    uploads.finish(deadline)

    assert retries.planned == []


def test_finish_with_nothing_to_do_returns_at_once(uploads: Uploads, store: Any) -> None:
    since = time.monotonic()

    uploads.finish(60)

    assert time.monotonic() - since < 5
    assert store.asked == []


# -- warming up, and forks --------------------------------------------------------------------------------------------


def test_warming_up_happens_on_the_uploads_own_thread(uploads: Uploads, store: Any, settled: Any) -> None:
    uploads.warm_up()
    settled()

    assert store.warmed_up.is_set()


def test_a_store_that_cannot_be_warmed_up_is_logged(
    uploads: Uploads, store: Any, settled: Any, make_artifact: MakeArtifact, caplog: pytest.LogCaptureFixture
) -> None:
    store.warm_up_failure = StoreError("no S3 client: check the AWS_ variables")

    uploads.warm_up()
    uploads.add(make_artifact(1))
    settled()

    assert caplog.messages[0] == ("profiling: memory://store is not ready: no S3 client: check the AWS_ variables")
    assert uploads.counts.stored == 1


def test_a_pause_keeps_what_waits_for_the_store(
    uploads: Uploads, store: Any, settled: Any, make_artifact: MakeArtifact, deadline: float
) -> None:
    uploads.pause(deadline)
    uploads.add(make_artifact(1))

    assert store.asked == []
    uploads.resume()
    settled()
    assert len(store.content) == 1
