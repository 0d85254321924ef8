"""Captures on disk, in one directory for all workers of a service."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from profiling_middleware.model import Artifact
from profiling_middleware.private_directory import PrivateDirectory
from profiling_middleware.waiting.capture_file import Damaged, size_of
from profiling_middleware.waiting.lost import Lost
from profiling_middleware.waiting.spool import MAX_AGE_NS, Gone, Spool, Spooled, TooBig

MakeArtifact = Callable[..., Artifact]
OpenSpool = Callable[..., Spool]
Names = Callable[[], list[str]]

FIRST, SECOND = "web-1-7-0a1b2c3d", "web-1-8-4e5f6a7b"
STARTED_NS = 1_769_441_400_000_000_000  # of make_artifact(0); one second more for each number


def add(spool: Spool, artifact: Artifact) -> tuple[Spooled, list[Lost]]:
    """The new file, and what it has cost."""
    lost: list[Lost] = []
    return spool.add(artifact, lost), lost


def adopt(spool: Spool) -> tuple[list[Spooled], list[Lost]]:
    """What it has taken over, and what was dropped."""
    adopted: list[Spooled] = []
    lost: list[Lost] = []
    spool.adopt(adopted, lost)
    return adopted, lost


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def name_of(number: int, owner: str = FIRST, state: str = "waiting") -> str:
    return f"{STARTED_NS + number * 10**9:020d}.{number:016x}.{owner}.{state}"


# -- one owner --------------------------------------------------------------------------------------------------------


def test_what_is_added_is_one_file_and_comes_back(
    open_spool: OpenSpool, names: Names, make_artifact: MakeArtifact
) -> None:
    spool, artifact = open_spool(FIRST), make_artifact(1, size=500)

    entry, dropped = add(spool, artifact)

    assert (names(), dropped) == ([name_of(1)], [])
    assert entry.size == size_of(artifact)
    again = spool.check_out(entry)
    assert (again.info, again.key, again.own_key, again.read()) == (
        artifact.info,
        artifact.key,
        artifact.own_key,
        artifact.body,
    )


def test_while_it_is_out_its_name_says_so_and_then_it_goes(
    open_spool: OpenSpool, names: Names, make_artifact: MakeArtifact
) -> None:
    spool = open_spool(FIRST)
    entry, _ = add(spool, make_artifact(1))

    spool.check_out(entry)
    assert names() == [name_of(1, state="going")]
    spool.put_back(entry)
    assert names() == [name_of(1)]
    spool.check_out(entry)
    spool.remove(entry)
    assert names() == []


def test_a_full_disk_leaves_nothing_behind(
    open_spool: OpenSpool, names: Names, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool(FIRST)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left on device"):
        add(spool, make_artifact(1))

    assert names() == []


def test_a_damaged_file_is_removed(
    open_spool: OpenSpool, place: Path, names: Names, make_artifact: MakeArtifact
) -> None:
    spool = open_spool(FIRST)
    entry, _ = add(spool, make_artifact(1))
    (place / entry.name).write_bytes(b"torn")

    with pytest.raises(Damaged):
        spool.check_out(entry)

    assert names() == []


def test_what_somebody_removed_is_gone(open_spool: OpenSpool, place: Path, make_artifact: MakeArtifact) -> None:
    spool = open_spool(FIRST)
    entry, _ = add(spool, make_artifact(1))
    (place / entry.name).unlink()

    with pytest.raises(Gone):
        spool.check_out(entry)
    spool.remove(entry)
    spool.put_back(entry)


def test_closing_it_leaves_no_descriptor_and_no_lock(open_spool: OpenSpool, place: Path) -> None:
    before = open_descriptors()
    spool = open_spool(FIRST)
    assert [path.name for path in place.iterdir()] == [f"{FIRST}.lock"]

    spool.close()

    assert list(place.iterdir()) == []
    assert open_descriptors() == before


def test_what_cannot_be_opened_now_still_waits(
    open_spool: OpenSpool, names: Names, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool(FIRST)
    entry, _ = add(spool, make_artifact(1))

    def refused(directory: PrivateDirectory, name: str) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(PrivateDirectory, "open", refused)
        with pytest.raises(OSError, match="Too many"):
            spool.check_out(entry)

    assert names() == [name_of(1)]
    assert spool.check_out(entry).key == make_artifact(1).key


def test_what_could_not_be_put_back_is_not_forgotten(
    open_spool: OpenSpool, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool(FIRST)
    entry, _ = add(spool, make_artifact(1))
    spool.check_out(entry)

    def refused(directory: PrivateDirectory, old: str, new: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(PrivateDirectory, "rename", refused)
        with pytest.raises(OSError, match="Input/output"):
            spool.put_back(entry)

    assert spool.check_out(entry).key == make_artifact(1).key


def test_a_name_that_may_not_be_on_disk_is_taken_back(
    open_spool: OpenSpool, names: Names, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told that it failed keeps the capture elsewhere, and would put it twice."""
    spool = open_spool(FIRST)

    def refused(directory: PrivateDirectory) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(PrivateDirectory, "sync", refused)
    with pytest.raises(OSError, match="Input/output"):
        add(spool, make_artifact(1))

    assert names() == []


def test_a_lock_that_cannot_be_held_leaves_nothing_open(
    place: Path, open_spool: OpenSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    PrivateDirectory(place).close()
    before = open_descriptors()

    def refused(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    directory = PrivateDirectory(place)
    with pytest.raises(OSError, match="No locks"):
        Spool(directory, FIRST, 1000, lambda: STARTED_NS)
    directory.close()

    assert (open_descriptors(), list(place.iterdir())) == (before, [])


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_the_oldest_make_room_whoever_they_belong_to(
    open_spool: OpenSpool, names: Names, make_artifact: MakeArtifact
) -> None:
    room = 3 * size_of(make_artifact(1, size=1000))
    first, second = open_spool(FIRST, max_bytes=room), open_spool(SECOND, max_bytes=room)
    add(first, make_artifact(1, size=1000))
    add(second, make_artifact(2, size=1000))
    add(first, make_artifact(3, size=1000))

    _, dropped = add(second, make_artifact(4, size=1000))

    assert [(one.name.split()[1], one.reason) for one in dropped] == [
        ("key=profiles/watcher/cpu/1.pprof.gz", "the spool is full (PROFILE_SPOOL_MAX_BYTES)")
    ]
    assert names() == [name_of(2, SECOND), name_of(3), name_of(4, SECOND)]


def test_it_is_never_fuller_than_it_may_be_not_even_for_a_moment(
    open_spool: OpenSpool, place: Path, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 2 * size_of(make_artifact(1, size=1000))
    spool = open_spool(FIRST, max_bytes=room)
    fullest = 0
    write = os.write

    def watched(descriptor: int, data: bytes) -> int:
        nonlocal fullest
        count = write(descriptor, data)
        fullest = max(fullest, sum(path.stat().st_size for path in place.iterdir()))
        return count

    monkeypatch.setattr(os, "write", watched)
    for number in range(5):
        add(spool, make_artifact(number, size=1000))

    assert 0 < fullest <= room


def test_what_is_being_put_is_not_dropped(open_spool: OpenSpool, names: Names, make_artifact: MakeArtifact) -> None:
    room = 2 * size_of(make_artifact(1, size=1000))
    first, second = open_spool(FIRST, max_bytes=room), open_spool(SECOND, max_bytes=room)
    entry, _ = add(first, make_artifact(1, size=1000))
    add(first, make_artifact(2, size=1000))
    first.check_out(entry)

    _, dropped = add(second, make_artifact(3, size=1000))

    assert [one.capture_id for one in dropped] == [f"{2:016x}"]
    assert names() == [name_of(1, state="going"), name_of(3, SECOND)]


def test_what_is_dropped_by_two_at_once_is_told_once(
    open_spool: OpenSpool, place: Path, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one was quicker between the look and the removal."""
    size = size_of(make_artifact(1, size=1000))
    first, second = open_spool(FIRST, max_bytes=2 * size), open_spool(SECOND, max_bytes=2 * size)
    add(first, make_artifact(1, size=1000))
    add(first, make_artifact(2, size=1000))
    remove = PrivateDirectory.remove

    def slow(directory: PrivateDirectory, name: str) -> None:
        monkeypatch.setattr(PrivateDirectory, "remove", remove)
        told = add(second, make_artifact(3, size=1000))[1]
        # Both are to have their place.
        assert [one.capture_id for one in told] == [f"{number:016x}" for number in (1, 2)]
        remove(directory, name)

    monkeypatch.setattr(PrivateDirectory, "remove", slow)
    _, dropped = add(first, make_artifact(4, size=1000))

    assert dropped == []


def test_two_who_write_at_once_do_not_fill_it_beyond_its_bound(
    open_spool: OpenSpool, place: Path, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = size_of(make_artifact(1, size=1000))
    first, second = open_spool(FIRST, max_bytes=size), open_spool(SECOND, max_bytes=size)
    write = os.write

    def meanwhile(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(TooBig):
            add(second, make_artifact(2, size=1000))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", meanwhile)
    add(first, make_artifact(1, size=1000))

    assert sum(path.stat().st_size for path in place.iterdir()) == size


def test_what_made_room_is_told_also_when_the_disk_is_full_then(
    open_spool: OpenSpool, names: Names, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool(FIRST, max_bytes=size_of(make_artifact(1, size=1000)))
    add(spool, make_artifact(1, size=1000))

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    lost: list[Lost] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            spool.add(make_artifact(2, size=1000), lost)

    assert [one.capture_id for one in lost] == [f"{1:016x}"]
    assert names() == []


def test_dropping_many_opens_one_at_a_time_and_leaves_none_open(
    open_spool: OpenSpool, place: Path, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool(FIRST, max_bytes=1_000_000)
    for number in range(20):
        add(spool, make_artifact(number))
    (place / name_of(3)).write_bytes(b"torn")
    before, most = open_descriptors(), 0
    remove = PrivateDirectory.remove

    def counted(directory: PrivateDirectory, name: str) -> None:
        nonlocal most
        most = max(most, open_descriptors())
        remove(directory, name)

    monkeypatch.setattr(PrivateDirectory, "remove", counted)
    _, lost = adopt(open_spool(SECOND, now_ns=STARTED_NS + MAX_AGE_NS + 10**12))

    assert len(lost) == 20
    assert lost[3].name == f"file={name_of(3)}"
    assert most <= before + 3  # the other's directory and lock, and a file
    assert open_descriptors() <= before + 2


def test_one_too_big_for_all_of_it_is_refused_and_nothing_dropped(
    open_spool: OpenSpool, names: Names, make_artifact: MakeArtifact
) -> None:
    spool = open_spool(FIRST, max_bytes=4000)
    add(spool, make_artifact(1))

    with pytest.raises(TooBig):
        add(spool, make_artifact(2, size=4000))

    assert names() == [name_of(1)]


def test_what_is_too_old_is_dropped(open_spool: OpenSpool, names: Names, make_artifact: MakeArtifact) -> None:
    spool = open_spool(FIRST, now_ns=STARTED_NS + 2 * 10**9 + MAX_AGE_NS)
    dropped = [one for number in (1, 2, 3) for one in add(spool, make_artifact(number))[1]]

    assert [(one.capture_id, one.reason) for one in dropped] == [(f"{1:016x}", "it is older than 7 days")]
    assert names() == [name_of(2), name_of(3)]


# -- several owners ---------------------------------------------------------------------------------------------------


def test_the_captures_of_a_living_owner_are_its_own(
    open_spool: OpenSpool, names: Names, make_artifact: MakeArtifact
) -> None:
    add(open_spool(FIRST), make_artifact(1))

    assert adopt(open_spool(SECOND)) == ([], [])
    assert names() == [name_of(1)]


def test_those_of_one_that_has_stopped_are_for_the_next(
    open_spool: OpenSpool, names: Names, make_artifact: MakeArtifact
) -> None:
    first = open_spool(FIRST)
    add(first, make_artifact(1))
    first.close()
    second = open_spool(SECOND)

    (entry,), _ = adopt(second)

    assert names() == [name_of(1, SECOND)]
    assert second.check_out(entry).read() == make_artifact(1).body


@pytest.mark.parametrize("state", ["waiting", "going"])
def test_those_of_one_that_was_killed_too_and_what_it_had_begun_goes(
    open_spool: OpenSpool, place: Path, names: Names, make_artifact: MakeArtifact, state: str
) -> None:
    program = f"""
import os, signal, sys
from pathlib import Path
from profiling_middleware.model import Artifact, CaptureInfo
from profiling_middleware.private_directory import PrivateDirectory
from profiling_middleware.waiting.spool import Spool
spool = Spool(PrivateDirectory(Path(sys.argv[1])), "{FIRST}", 10_000, lambda: {STARTED_NS})
info = CaptureInfo(
    kind="cpu", service="watcher", instance="x", capture_id="1", started_ns={STARTED_NS}, trigger="periodic"
)
entry = spool.add(Artifact(info=info, key="k", own_key="o", body=b"body"), [])
if "{state}" == "going":
    spool.check_out(entry)
os.close(spool._directory.create("2.{FIRST}.part"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program, place], check=False).returncode == -9
    assert len(names()) == 2
    second = open_spool(SECOND)

    (entry,), _ = adopt(second)

    assert names() == [entry.name]
    assert second.check_out(entry).read() == b"body"
    assert sorted(path.name for path in place.iterdir() if path.suffix == ".lock") == [f"{SECOND}.lock"]


def test_of_two_who_adopt_at_once_one_gets_it(
    open_spool: OpenSpool, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_spool(FIRST)
    add(first, make_artifact(1))
    first.close()
    second, third = open_spool(SECOND), open_spool("web-1-9-00000000")
    rename = PrivateDirectory.rename
    theirs = []

    def slow(directory: PrivateDirectory, old: str, new: str) -> None:
        monkeypatch.setattr(PrivateDirectory, "rename", rename)
        theirs.extend(adopt(third)[0])
        rename(directory, old, new)

    monkeypatch.setattr(PrivateDirectory, "rename", slow)
    ours, _ = adopt(second)

    assert len(ours) + len(theirs) == 1


def test_files_of_others_that_are_no_captures_stay(open_spool: OpenSpool, place: Path, names: Names) -> None:
    spool = open_spool(FIRST)
    for name in ("README", ".hidden", "1.2.3", "x.waiting"):
        (place / name).touch()

    assert adopt(spool) == ([], [])
    assert names() == [".hidden", "1.2.3", "README", "x.waiting"]


def test_a_forked_child_that_lets_go_leaves_all_to_its_parent(
    open_spool: OpenSpool, place: Path, make_artifact: MakeArtifact
) -> None:
    first = open_spool(FIRST)
    add(first, make_artifact(1))
    child = os.fork()
    if child == 0:
        first.abandon()
        os._exit(0)
    os.waitpid(child, 0)

    assert adopt(open_spool(SECOND)) == ([], [])
    assert (place / f"{FIRST}.lock").exists()


def test_a_lock_that_was_taken_for_one_of_the_dead_is_made_again(
    open_spool: OpenSpool, place: Path, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making it and locking it somebody who adopts comes by."""
    second = open_spool(SECOND)
    create = PrivateDirectory.create

    def slow(directory: PrivateDirectory, name: str) -> int:
        descriptor = create(directory, name)
        monkeypatch.setattr(PrivateDirectory, "create", create)
        adopt(second)
        return descriptor

    monkeypatch.setattr(PrivateDirectory, "create", slow)
    first = open_spool(FIRST)
    add(first, make_artifact(1))

    assert (place / f"{FIRST}.lock").exists()
    assert adopt(second) == ([], [])


def test_one_owners_trouble_keeps_nobody_from_anothers(
    open_spool: OpenSpool, place: Path, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = [f"gone-{number}-0-00000000" for number in range(6)]
    for number, owner in enumerate(owners):
        gone = open_spool(owner)
        add(gone, make_artifact(number))
        gone.abandon()
    (place / f"{owners[2]}.lock").unlink()
    (place / f"{owners[2]}.lock").symlink_to("/dev/null")
    opens = PrivateDirectory.open

    def refused(directory: PrivateDirectory, name: str) -> int:
        if name == f"{owners[4]}.lock":
            raise OSError(errno.EIO, "Input/output error")
        return opens(directory, name)

    monkeypatch.setattr(PrivateDirectory, "open", refused)
    adopted: list[Spooled] = []
    with pytest.raises(OSError, match="Input/output"):
        open_spool(FIRST).adopt(adopted, [])

    assert sorted(entry.capture_id for entry in adopted) == [f"{number:016x}" for number in (0, 1, 2, 3, 5)]
