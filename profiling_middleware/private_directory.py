"""A directory that is this user's alone, held by its descriptor: what somebody puts in its place is not it."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from profiling_middleware.descriptors import above_standard_streams

_EVERYBODY_ELSE = 0o077


class NotPrivate(OSError):  # noqa: N818 - it says what is the case
    """What lies there belongs to somebody else, is open to others, or is a link."""


class PrivateDirectory:
    """All names are those of files in it. Every method raises OSError."""

    def __init__(self, path: Path) -> None:
        """Makes it if it is not there, for the owner only. Raises NotPrivate, or another OSError."""
        self.path = path
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700, parents=True)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except NotADirectoryError:  # so says Linux of a link
            raise NotPrivate(f"{path} is a link, or no directory: remove it") from None
        self._descriptor: int | None = above_standard_streams(descriptor)
        try:
            self._check(os.fstat(self._descriptor))
        except NotPrivate:
            self.close()
            raise

    def entries(self) -> Iterator[tuple[str, int]]:
        """Name and size of each plain file in it."""
        with os.scandir(self._open_descriptor) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # another process was quicker
                if stat.S_ISREG(status.st_mode):
                    yield entry.name, status.st_size

    def sockets(self) -> Iterator[str]:
        """The name of each socket in it."""
        with os.scandir(self._open_descriptor) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another process was quicker
                    if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                        yield entry.name

    def socket_path(self, name: str) -> str:
        """Where a socket of this name is bound and connected to, in this process and while the directory is open.

        Through the descriptor where that is possible: it is this directory whatever lies at its path meanwhile, and the
        address of a socket has 107 bytes at most.
        """
        through = Path(f"/proc/self/fd/{self._open_descriptor}")
        return str((through if through.exists() else self.path) / name)

    def create(self, name: str) -> int:
        """The descriptor, to write, of a file that was not there before."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return above_standard_streams(os.open(name, flags, 0o600, dir_fd=self._open_descriptor))

    def open(self, name: str) -> int:
        """The descriptor, to read and write, of a file that is there. Raises NotPrivate when it is not only ours."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = above_standard_streams(os.open(name, flags, dir_fd=self._open_descriptor))
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_uid != os.geteuid():
            os.close(descriptor)
            raise NotPrivate(f"{self.path / name} is not a plain file of this user")
        return descriptor

    def rename(self, old: str, new: str) -> None:
        """Atomically; `new` is replaced."""
        os.rename(old, new, src_dir_fd=self._open_descriptor, dst_dir_fd=self._open_descriptor)

    def remove(self, name: str) -> None:
        """Raises FileNotFoundError when somebody was quicker."""
        os.unlink(name, dir_fd=self._open_descriptor)

    def touch(self, name: str) -> None:
        """It is in use now: systems clear old files out of directories of temporary ones."""
        os.utime(name, dir_fd=self._open_descriptor, follow_symlinks=False)

    def sync(self) -> None:
        """Names that were given are on disk when this returns."""
        os.fsync(self._open_descriptor)

    @property
    def is_gone(self) -> bool:
        """Whether somebody has removed it. It may be there again, as another one."""
        return self._descriptor is not None and not os.fstat(self._descriptor).st_nlink

    def close(self) -> None:
        """From now on every method raises."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @property
    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise FileNotFoundError(f"{self.path} is closed")
        return self._descriptor

    def _check(self, status: os.stat_result) -> None:
        if status.st_uid != os.geteuid():
            raise NotPrivate(f"{self.path} belongs to uid {status.st_uid}, and this process is uid {os.geteuid()}")
        if status.st_mode & _EVERYBODY_ELSE:
            raise NotPrivate(f"{self.path} is open to others (mode {status.st_mode & 0o777:o}): chmod 700 it")


def open_below(base: Path | None, name: str) -> PrivateDirectory:
    """The directory `name` in PROFILE_SPOOL_DIR, or in this user's own one when nobody says where. Raises OSError."""
    if base is None:
        base = directory_of_this_user()
        PrivateDirectory(base).close()
    return PrivateDirectory(base / name)


def directory_of_this_user() -> Path:
    """Where waiting captures are when nobody says where."""
    return Path(tempfile.gettempdir()) / f"profiling_middleware-{os.geteuid()}"
