"""All captures of this process that wait: on disk, and in memory what the spool does not take."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from profiling_middleware.model import Artifact
from profiling_middleware.private_file import PrivateFile
from profiling_middleware.waiting.backlog import Backlog
from profiling_middleware.waiting.capture_file import size_of
from profiling_middleware.waiting.lost import Lost
from profiling_middleware.waiting.memory import Memory
from profiling_middleware.waiting.spool import Spool, TooBig

MakeArtifact = Callable[..., Artifact]
FULL = OSError(28, "No space left on device")


class Disk:
    """A spool whose disk can be made full."""

    def __init__(self, open_spool: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch) -> None:
        self._open_spool, self._patch = open_spool, monkeypatch
        self.opened = 0
        self.failure: OSError | None = None
        self.too_big = ""

    def open(self) -> Spool:
        self.opened += 1
        if self.failure is not None:
            raise self.failure
        spool = self._open_spool(f"web-1-7-{self.opened:08x}")
        add = spool.add

        def checked(artifact: Artifact, lost: list[Lost]) -> Any:
            if self.failure is not None:
                raise self.failure
            if artifact.info.capture_id == self.too_big:
                raise TooBig
            return add(artifact, lost)

        self._patch.setattr(spool, "add", checked)
        return spool


@pytest.fixture
def disk(open_spool: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(open_spool, monkeypatch)


@pytest.fixture
def backlog(disk: Disk, logger: logging.Logger) -> Iterator[Backlog]:
    backlog = Backlog(disk.open, Memory(max_bytes=100), logger)
    yield backlog
    backlog.close()


def taken(backlog: Backlog) -> list[str]:
    """The keys of all that waits, in the order in which it would be put; it is put."""
    keys = []
    while (artifact := backlog.take()[0]) is not None:
        keys.append(artifact.key)
        backlog.done(artifact)
    return keys


def key(number: int) -> str:
    return f"profiles/watcher/cpu/{number}.pprof.gz"


def test_nothing_is_opened_before_it_is_needed(backlog: Backlog, disk: Disk, place: Path) -> None:
    assert (disk.opened, place.exists(), backlog.waiting, backlog.place) == (0, False, (0, 0), "memory")


def test_a_capture_is_on_disk_before_it_is_taken(
    backlog: Backlog, names: Callable[[], list[str]], make_artifact: MakeArtifact, place: Path
) -> None:
    assert backlog.add(make_artifact(1)) == []

    assert len(names()) == 1
    assert backlog.waiting == (1, size_of(make_artifact(1)))
    assert backlog.place == str(place)
    assert taken(backlog) == [key(1)]
    assert (names(), backlog.waiting) == ([], (0, 0))


def test_what_was_put_back_comes_last(backlog: Backlog, make_artifact: MakeArtifact) -> None:
    for number in (1, 2, 3):
        backlog.add(make_artifact(number))
    first, _ = backlog.take()
    assert first is not None

    backlog.put_back(first)

    assert taken(backlog) == [key(2), key(3), key(1)]


@pytest.mark.parametrize(
    "failure", [FULL, PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")]
)
def test_without_a_spool_captures_wait_in_memory_and_one_line_says_so(
    backlog: Backlog, disk: Disk, make_artifact: MakeArtifact, caplog: pytest.LogCaptureFixture, failure: OSError
) -> None:
    disk.failure = failure

    for number in (1, 2, 3):
        assert backlog.add(make_artifact(number)) == []

    (line,) = caplog.messages
    assert f"the spool cannot be used ({failure.strerror}), captures wait in memory" in line
    assert "PROFILE_SPOOL_DIR" in line
    assert (backlog.place, backlog.trouble, backlog.waiting) == ("memory", failure.strerror, (3, 30))
    assert taken(backlog) == [key(1), key(2), key(3)]


def test_a_directory_that_cannot_be_made_is_named(
    backlog: Backlog, disk: Disk, make_artifact: MakeArtifact, caplog: pytest.LogCaptureFixture
) -> None:
    disk.failure = PermissionError(13, "Permission denied", "/var/spool/profiling/watcher")

    backlog.add(make_artifact(1))

    assert "cannot be used (/var/spool/profiling/watcher: Permission denied), captures wait" in caplog.text


def test_the_newest_stay_in_memory_and_each_drop_is_told(
    backlog: Backlog, disk: Disk, make_artifact: MakeArtifact
) -> None:
    disk.failure = FULL
    lost = [one for number in range(1, 5) for one in backlog.add(make_artifact(number, size=40))]

    assert [one[:2] for one in lost] == [
        (f"kind=cpu key={key(number)} bytes=40", "memory for waiting captures is full") for number in (1, 2)
    ]
    assert backlog.waiting == (2, 80)


def test_with_room_again_what_was_in_memory_goes_to_disk_in_its_place(
    backlog: Backlog,
    disk: Disk,
    names: Callable[[], list[str]],
    make_artifact: MakeArtifact,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backlog.add(make_artifact(1))
    disk.failure = FULL
    backlog.add(make_artifact(2))
    disk.failure = None

    backlog.add(make_artifact(3))

    assert len(names()) == 3
    assert "the spool can be used again" in caplog.messages[-1]
    assert sorted(taken(backlog)) == [key(1), key(2), key(3)]


def test_what_goes_to_disk_while_it_is_put_is_put_once(
    backlog: Backlog, disk: Disk, names: Callable[[], list[str]], make_artifact: MakeArtifact
) -> None:
    disk.failure = FULL
    backlog.add(make_artifact(1))
    going, _ = backlog.take()
    assert going is not None
    disk.failure = None
    backlog.add(make_artifact(2))

    backlog.done(going)

    assert len(names()) == 1
    assert taken(backlog) == [key(2)]


def test_a_capture_too_big_for_the_spool_waits_in_memory_and_nothing_is_wrong_with_it(
    open_spool: Callable[..., Spool], logger: logging.Logger, make_artifact: MakeArtifact
) -> None:
    backlog = Backlog(lambda: open_spool(max_bytes=1000), Memory(), logger)

    assert backlog.add(make_artifact(1, size=2000)) == []

    assert (backlog.waiting, backlog.trouble) == ((1, 2000), None)
    assert not backlog.is_safe(make_artifact(1))


def test_a_directory_that_somebody_tidied_up_is_made_anew(
    backlog: Backlog, place: Path, names: Callable[[], list[str]], make_artifact: MakeArtifact
) -> None:
    backlog.add(make_artifact(1))
    shutil.rmtree(place)

    backlog.add(make_artifact(2))

    assert len(names()) == 1
    assert taken(backlog) == [key(2)]


def test_what_others_left_comes_in_the_order_of_its_time(
    backlog: Backlog, open_spool: Callable[..., Spool], make_artifact: MakeArtifact
) -> None:
    other = open_spool("gone-1-1-00000000")
    for number in (3, 1):
        other.add(make_artifact(number), [])
    other.close()
    backlog.add(make_artifact(2))

    assert backlog.adopt() == (2, [])

    assert taken(backlog) == [key(1), key(2), key(3)]


def test_a_damaged_one_is_lost_and_the_next_comes(backlog: Backlog, place: Path, make_artifact: MakeArtifact) -> None:
    backlog.add(make_artifact(1))
    (path,) = place.glob("*.waiting")
    path.write_bytes(b"torn")
    backlog.add(make_artifact(2))

    artifact, lost = backlog.take()

    assert artifact is not None
    assert artifact.key == key(2)
    assert lost == [Lost(f"file={path.name}", "it is damaged")]


def test_one_that_another_process_took_is_passed_over(
    backlog: Backlog, place: Path, make_artifact: MakeArtifact
) -> None:
    backlog.add(make_artifact(1))
    next(iter(place.glob("*.waiting"))).unlink()
    backlog.add(make_artifact(2))

    assert taken(backlog) == [key(2)]
    assert backlog.waiting == (0, 0)


def test_one_that_cannot_be_read_now_waits_on(
    backlog: Backlog, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    backlog.add(make_artifact(1))
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "check_out", lambda self, entry: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        assert backlog.take() == (None, [])

    assert backlog.trouble == "Input/output error"
    assert taken(backlog) == [key(1)]


def test_at_the_end_what_is_on_disk_stays_and_what_is_not_is_lost(
    backlog: Backlog, disk: Disk, names: Callable[[], list[str]], make_artifact: MakeArtifact
) -> None:
    backlog.add(make_artifact(1))
    disk.failure = FULL
    backlog.add(make_artifact(2))

    (lost,) = backlog.close()
    assert lost[:2] == (f"kind=cpu key={key(2)} bytes=10", "the service stops")
    assert len(names()) == 1


def test_what_must_not_be_lost_can_be_taken_alone(backlog: Backlog, disk: Disk, make_artifact: MakeArtifact) -> None:
    backlog.add(make_artifact(1))
    disk.failure = FULL
    backlog.add(make_artifact(2))

    artifact, _ = backlog.take(safe=False)

    assert artifact is not None
    assert artifact.key == key(2)


def test_opened_by_two_threads_at_once_it_is_opened_once(
    disk: Disk, logger: logging.Logger, make_artifact: MakeArtifact
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    backlog = Backlog(disk.open, Memory(), logger)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: backlog.add(make_artifact(number)), range(8)))

    assert (disk.opened, backlog.waiting[0], backlog.trouble) == (1, 8, None)


def test_a_forked_child_has_none_of_it(backlog: Backlog, place: Path, make_artifact: MakeArtifact) -> None:
    backlog.add(make_artifact(1))
    before = sorted(path.name for path in place.iterdir())
    child = os.fork()
    if child == 0:
        backlog.abandon()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    assert sorted(path.name for path in place.iterdir()) == before
    assert taken(backlog) == [key(1)]


def test_what_could_not_be_put_stays_behind_whatever_is_taken_over(
    backlog: Backlog, open_spool: Callable[..., Spool], make_artifact: MakeArtifact
) -> None:
    for number in (1, 2):
        backlog.add(make_artifact(number))
    refused, _ = backlog.take()
    assert refused is not None
    backlog.put_back(refused)

    assert backlog.adopt() == (0, [])
    other = open_spool("gone-1-1-00000000")
    other.add(make_artifact(3), [])
    other.close()
    assert backlog.adopt() == (1, [])

    assert taken(backlog) == [key(2), key(3), key(1)]


def test_one_too_big_for_the_spool_keeps_no_other_in_memory(
    backlog: Backlog, disk: Disk, make_artifact: MakeArtifact
) -> None:
    disk.failure, disk.too_big = FULL, make_artifact(1).info.capture_id
    for number in (1, 2):
        backlog.add(make_artifact(number, size=40))
    disk.failure = None
    backlog.add(make_artifact(3))

    assert [one.name.split()[1] for one in backlog.close()] == [f"key={key(1)}"]


def test_what_went_with_the_directory_is_lost_and_told(
    backlog: Backlog, make_artifact: MakeArtifact, place: Path
) -> None:
    for number in (1, 2):
        backlog.add(make_artifact(number))
    shutil.rmtree(place)

    lost = backlog.add(make_artifact(3))

    assert [(one.capture_id, one.reason) for one in lost] == [
        (make_artifact(number).info.capture_id, "the spool has been removed") for number in (1, 2)
    ]
    assert taken(backlog) == [key(3)]


def test_what_somebody_removed_is_told(
    backlog: Backlog, make_artifact: MakeArtifact, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backlog.add(make_artifact(1))
    (path,) = place.glob("*.waiting")
    path.unlink()

    assert backlog.take() == (None, [])

    assert f"file={path.name} is no more in the spool" in caplog.text


def test_what_comes_after_the_end_is_lost_and_opens_nothing(
    backlog: Backlog, disk: Disk, make_artifact: MakeArtifact
) -> None:
    backlog.close()

    (lost,) = backlog.add(make_artifact(1))

    assert lost.reason == "the service has stopped"
    assert disk.opened == 0


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_file_that_was_put_is_closed_at_once(backlog: Backlog, make_artifact: MakeArtifact, is_stored: bool) -> None:
    """An exception may hold it until the collector comes."""
    backlog.add(make_artifact(1))
    artifact, _ = backlog.take()
    assert artifact is not None
    assert isinstance(artifact.body, PrivateFile)

    backlog.done(artifact) if is_stored else backlog.put_back(artifact)

    with pytest.raises(ValueError, match="closed"):
        artifact.body.read()
