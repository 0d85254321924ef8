"""A local directory with the same keys as the bucket."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from profiling_middleware.descriptors import above_standard_streams
from profiling_middleware.model import Body, CaptureInfo
from profiling_middleware.stores.base import KeyTaken, StoreError

_MODE = 0o640
_WITHOUT_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class DirectoryStore:
    """Files under `root`, whole or not there, readable by the owner and the group."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def place(self) -> str:
        return self._root.as_uri()

    def warm_up(self) -> None:
        """Nothing is slow here."""

    def put(self, key: str, body: Body, info: CaptureInfo) -> None:
        path = self._root / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _file_without_name(path.parent) or _file_with_another_name(path) as (descriptor, where):
                _write(descriptor, body)
                # Unlike a rename, a link fails where a file already is. Through a directory's descriptor, since only
                # then does it lead to where /proc's link points.
                os.link(where, path, src_dir_fd=descriptor, follow_symlinks=True)
            _sync(path.parent)
        except FileExistsError as error:
            if path.is_file():
                raise KeyTaken(key) from None
            raise StoreError(_explain(self._root, error)) from error
        except OSError as error:
            raise StoreError(_explain(self._root, error)) from error


def _file_without_name(directory: Path) -> AbstractContextManager[tuple[int, str]] | None:
    """A new one on the same disk, to write, and what a link is made from; None where there is no such thing.

    It is gone when the process ends before it got a name, however it ends.
    """
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").exists():
        return None
    try:
        descriptor = above_standard_streams(os.open(directory, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, _MODE))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):  # a file system that cannot
            return None
        raise
    return _closed_at_the_end(descriptor)


@contextmanager
def _closed_at_the_end(descriptor: int) -> Iterator[tuple[int, str]]:
    try:
        yield descriptor, f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextmanager
def _file_with_another_name(path: Path) -> Iterator[tuple[int, str]]:
    """The same, with a name that nobody takes for that of a capture, until the end."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    descriptor = above_standard_streams(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE))
    try:
        yield descriptor, str(temporary)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def _write(descriptor: int, body: Body) -> None:
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        for chunk in (body,) if isinstance(body, bytes) else body.chunks():
            file.write(chunk)
        file.flush()
        os.fsync(descriptor)


def _sync(directory: Path) -> None:
    """The file's name is on the disk, too: whoever kept the capture until then lets go of it now."""
    descriptor = above_standard_streams(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        with suppress(OSError):  # a file system may not know how
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(root: Path, error: OSError) -> str:
    if error.filename2 is not None and error.errno in _WITHOUT_LINKS:
        return (
            f"{error.strerror} ({error.filename2}): the file system of PROFILE_STORE ({root}) has no hard links, "
            "without which a capture could replace another: name a directory on one that has"
        )
    return (
        f"{error.strerror or error} ({error.filename or root}): the directory of PROFILE_STORE "
        f"({root}) must be writable by uid {os.geteuid()} and have room"
    )
