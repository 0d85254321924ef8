"""A directory that is this user's alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from profiling_middleware.private_directory import NotPrivate, PrivateDirectory, directory_of_this_user


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_it_is_made_for_the_owner_alone(tmp_path: Path) -> None:
    directory = PrivateDirectory(tmp_path / "new" / "spool")

    assert (tmp_path / "new" / "spool").stat().st_mode & 0o777 == 0o700
    directory.close()


def test_in_a_volume_that_hands_its_group_on_it_is_the_owners_alone(tmp_path: Path) -> None:
    """As Kubernetes mounts one with an fsGroup: open to everyone, and what is made in it has the group and the bit."""
    tmp_path.chmod(0o2777)

    for _start in range(2):
        PrivateDirectory(tmp_path / "spool").close()

    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    directory = PrivateDirectory(tmp_path / "spool")
    old = os.umask(0)
    try:
        os.close(directory.create("one"))
    finally:
        os.umask(old)

    assert (tmp_path / "spool" / "one").stat().st_mode & 0o777 == 0o600
    directory.close()


def test_one_that_is_open_to_others_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool").chmod(0o750)

    with pytest.raises(NotPrivate, match=r"spool is open to others \(mode 750\): chmod 700 it"):
        PrivateDirectory(tmp_path / "spool")


def test_one_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spool").mkdir(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)

    with pytest.raises(NotPrivate, match=rf"belongs to uid {os.getuid()}, and this process is uid 4711"):
        PrivateDirectory(tmp_path / "spool")


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(0o700)
    (tmp_path / "spool").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(NotPrivate, match="is a link, or no directory: remove it"):
        PrivateDirectory(tmp_path / "spool")


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()

    with pytest.raises(NotPrivate, match="is a link, or no directory: remove it"):
        PrivateDirectory(tmp_path / "spool")


def test_refusing_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool").chmod(0o777)
    before = open_descriptors()

    for _ in range(3):
        with pytest.raises(NotPrivate):
            PrivateDirectory(tmp_path / "spool")

    assert open_descriptors() == before


@pytest.mark.parametrize("what", ["link", "two names", "directory", "fifo"])
def test_only_plain_files_with_one_name_are_opened(tmp_path: Path, what: str) -> None:
    directory = PrivateDirectory(tmp_path / "spool")
    secret = tmp_path / "secret"
    secret.write_text("of the service")
    name = tmp_path / "spool" / "one"
    {"link": name.symlink_to, "two names": name.hardlink_to}.get(what, lambda _: None)(secret)
    if what == "directory":
        name.mkdir()
    if what == "fifo":
        os.mkfifo(name)

    with pytest.raises(OSError, match=r"is not a plain file of this user|Too many levels|Is a directory"):
        os.close(directory.open("one"))
    directory.close()


def test_what_is_put_in_its_place_is_not_it(tmp_path: Path) -> None:
    directory = PrivateDirectory(tmp_path / "spool")
    (tmp_path / "spool").rename(tmp_path / "moved")
    (tmp_path / "spool").mkdir()

    os.close(directory.create("one"))

    assert (tmp_path / "moved" / "one").exists()
    assert not (tmp_path / "spool" / "one").exists()
    directory.close()


def test_its_entries_are_its_plain_files_with_their_sizes(tmp_path: Path) -> None:
    directory = PrivateDirectory(tmp_path / "spool")
    (tmp_path / "spool" / "one").write_bytes(b"12345")
    (tmp_path / "spool" / "two").mkdir()
    (tmp_path / "spool" / "three").symlink_to(tmp_path)

    assert list(directory.entries()) == [("one", 5)]
    directory.close()


def test_after_closing_everything_is_refused(tmp_path: Path) -> None:
    directory = PrivateDirectory(tmp_path / "spool")
    directory.close()

    with pytest.raises(FileNotFoundError, match="is closed"):
        directory.create("one")


def test_the_directory_of_this_user_has_its_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    assert directory_of_this_user() == tmp_path / f"profiling_middleware-{os.geteuid()}"
