"""A local directory as the store."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiling_middleware.config import Settings
from profiling_middleware.model import CaptureInfo
from profiling_middleware.stores import KeyTaken, StoreError, make_store
from profiling_middleware.stores.directory import DirectoryStore

KEY = "profiles/watcher/cpu/2026-01-26/15-30-00.pprof.gz"
MakeInfo = Callable[..., CaptureInfo]


@pytest.fixture
def info(make_info: MakeInfo) -> CaptureInfo:
    return make_info()


@pytest.fixture(autouse=True, params=["without a name", "with another name"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the file is until it is whole: not every file system, nor every system, has those without a name."""
    if request.param == "with another name":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("there are none here")
    return str(request.param)


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def test_a_capture_lies_below_the_root_under_its_key(tmp_path: Path, info: CaptureInfo) -> None:
    DirectoryStore(tmp_path / "new" / "root").put(KEY, b"body", info)

    assert (tmp_path / "new" / "root" / KEY).read_bytes() == b"body"


def test_no_temporary_file_is_left(tmp_path: Path, info: CaptureInfo) -> None:
    store = DirectoryStore(tmp_path)
    store.put(KEY, b"body", info)
    with pytest.raises(KeyTaken):
        store.put(KEY, b"other", info)

    assert files_below(tmp_path) == [KEY]


def test_nothing_is_ever_replaced(tmp_path: Path, info: CaptureInfo) -> None:
    store = DirectoryStore(tmp_path)
    store.put(KEY, b"first", info)

    with pytest.raises(KeyTaken, match=KEY):
        store.put(KEY, b"second", info)

    assert (tmp_path / KEY).read_bytes() == b"first"


def test_of_many_that_put_the_same_key_at_once_exactly_one_succeeds(
    tmp_path: Path, info: CaptureInfo, deadline: float
) -> None:
    count, together = 8, threading.Barrier(8, timeout=deadline)
    outcomes: list[str] = []

    def put(number: int) -> None:
        together.wait()
        try:
            DirectoryStore(tmp_path).put(KEY, bytes([number]) * 100_000, info)
            outcomes.append("stored")
        except KeyTaken:
            outcomes.append("taken")

    threads = [threading.Thread(target=put, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline)

    assert sorted(outcomes) == ["stored"] + ["taken"] * (count - 1)
    assert len(set((tmp_path / KEY).read_bytes())) == 1
    assert files_below(tmp_path) == [KEY]


def test_a_reader_sees_the_whole_capture_or_none(tmp_path: Path, info: CaptureInfo, deadline: float) -> None:
    """Reads every file as soon as it is there, while others are being written."""
    body, finished, partial = b"x" * 300_000, threading.Event(), []

    def watch() -> None:
        while not finished.is_set():
            partial.extend(path for path in tmp_path.rglob("*.pprof.gz") if path.stat().st_size != len(body))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(100):
            DirectoryStore(tmp_path).put(f"cpu/{number}.pprof.gz", body, info)
    finally:
        finished.set()
        watcher.join(deadline)

    assert partial == []


def test_a_write_that_fails_half_way_leaves_nothing(
    tmp_path: Path, info: CaptureInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StoreError, match=r"No space left on device .*PROFILE_STORE .* have room"):
        DirectoryStore(tmp_path).put(KEY, b"body", info)

    assert files_below(tmp_path) == []


def test_a_process_that_ends_half_way_leaves_nothing(tmp_path: Path, info: CaptureInfo, how: str) -> None:
    child = os.fork()
    if child == 0:
        os.fsync = lambda descriptor: os._exit(3)
        try:
            DirectoryStore(tmp_path).put(KEY, b"body", info)
        finally:
            os._exit(4)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    left = files_below(tmp_path)
    assert not left if how == "without a name" else [Path(name).suffix for name in left] == [".part"]


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_a_file_system_without_nameless_files_does_too(
    number: int, tmp_path: Path, info: CaptureInfo, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "with another name":
        pytest.skip("none is asked for")
    ordinary = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return ordinary(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    DirectoryStore(tmp_path).put(KEY, b"body", info)

    assert (tmp_path / KEY).read_bytes() == b"body"
    assert files_below(tmp_path) == [KEY]


def test_what_was_written_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, info: CaptureInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []

    def note(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_size, (tmp_path / KEY).exists()))

    monkeypatch.setattr(os, "fsync", note)
    DirectoryStore(tmp_path).put(KEY, b"body", info)

    assert synced[0] == (4, False)


def test_its_name_is_on_the_disk_when_it_is_stored(
    tmp_path: Path, info: CaptureInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    DirectoryStore(tmp_path).put("profiles/watcher/cpu/1.pprof.gz", b"body", info)

    assert synced[-1] == str(tmp_path / "profiles/watcher/cpu")


def test_a_file_system_without_hard_links_is_explained(
    tmp_path: Path, info: CaptureInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as of memory cards, and some of networks."""

    def refused(source: str, target: Path, **_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", source, None, str(target))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(StoreError, match="has no hard links"):
        DirectoryStore(tmp_path).put("profiles/watcher/cpu/1.pprof.gz", b"body", info)


def test_others_cannot_read_a_capture(tmp_path: Path, info: CaptureInfo) -> None:
    before = os.umask(0)
    try:
        DirectoryStore(tmp_path).put(KEY, b"body", info)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o640


def test_a_file_in_place_of_the_directory_is_explained(tmp_path: Path, info: CaptureInfo) -> None:
    root = tmp_path / "root"
    root.write_text("I was here first")

    with pytest.raises(StoreError) as failure:
        DirectoryStore(root).put(KEY, b"body", info)

    assert f"the directory of PROFILE_STORE ({root}) must be writable by uid {os.geteuid()}" in str(failure.value)
    assert root.read_text() == "I was here first"


def test_a_file_in_place_of_a_folder_of_the_key_is_a_failure_and_no_taken_key(
    tmp_path: Path, info: CaptureInfo
) -> None:
    (tmp_path / "profiles").write_text("I was here first")

    with pytest.raises(StoreError, match="PROFILE_STORE"):
        DirectoryStore(tmp_path).put(KEY, b"body", info)


def test_a_directory_in_place_of_the_file_is_a_failure_and_no_taken_key(tmp_path: Path, info: CaptureInfo) -> None:
    (tmp_path / KEY).mkdir(parents=True)

    with pytest.raises(StoreError, match="File exists"):
        DirectoryStore(tmp_path).put(KEY, b"body", info)

    assert files_below(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_explained(tmp_path: Path, info: CaptureInfo) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(StoreError, match="Permission denied"):
        DirectoryStore(tmp_path).put(KEY, b"body", info)


def test_the_place_is_the_url_of_the_directory(tmp_path: Path) -> None:
    assert DirectoryStore(Path("/var/my profiles")).place == "file:///var/my%20profiles"


def test_warming_up_creates_nothing(tmp_path: Path) -> None:
    DirectoryStore(tmp_path / "root").warm_up()

    assert list(tmp_path.iterdir()) == []


def test_the_settings_pick_the_store(tmp_path: Path) -> None:
    assert make_store(Settings(store=tmp_path.as_uri())).place == tmp_path.as_uri()
    assert make_store(Settings(bucket="mine", environment="prod")).place == "s3://mine-prod"
    assert list(tmp_path.iterdir()) == []
