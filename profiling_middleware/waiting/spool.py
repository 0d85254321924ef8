"""Captures on disk until they are in the store, in one directory for all workers of a service on this host.

    {started_ns}.{capture id}.{owner}.waiting     a capture; `.going` while its owner puts it, so that nobody drops it
    {owner}.lock                                  locked (flock) by the owner for as long as it lives
    {capture id}.{owner}.part                     being written, as long already as it will be

An owner is an instance. The captures of one that is no more are for the first that finds them: a rename has one winner.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from profiling_middleware.model import Artifact
from profiling_middleware.private_directory import NotPrivate, PrivateDirectory
from profiling_middleware.waiting.capture_file import Damaged, close_body, read_capture, size_of, write_capture
from profiling_middleware.waiting.lost import Lost, lost_capture, lost_file

MAX_AGE_NS = 7 * 24 * 3600 * 1_000_000_000
"""Older ones are dropped: who looks at them would take them for what the service does."""
_CAPTURE = re.compile(r"(?P<started>\d{20})\.(?P<id>[0-9a-f]+)\.(?P<owner>[A-Za-z0-9-]+)\.(?P<state>waiting|going)")
_OF_OWNER = re.compile(r"(?:[0-9a-f]+\.)?(?P<owner>[A-Za-z0-9-]+)\.(?:part|lock)")


class Spooled(NamedTuple):
    """One capture's file."""

    started_ns: int
    capture_id: str
    owner: str
    state: str
    size: int

    @property
    def name(self) -> str:
        return f"{self.started_ns:020d}.{self.capture_id}.{self.owner}.{self.state}"

    def belongs_to(self, owner: str) -> Spooled:
        """The same, waiting, of another owner."""
        return self._replace(owner=owner, state="waiting")


class Gone(Exception):  # noqa: N818 - it says what is the case
    """Another process has dropped it, or taken it over."""


class TooBig(Exception):  # noqa: N818 - it says what is the case
    """It does not fit in: not alone, or not beside what others are writing or putting now."""


class _Alive(Exception):  # noqa: N818 - it says what is the case
    """An owner that is still there."""


class Spool:
    """One process's side of the directory. Thread-safe, since all there is to it lies in the file system.

    All methods raise OSError when the directory cannot be used.
    """

    def __init__(self, directory: PrivateDirectory, owner: str, max_bytes: int, now_ns: Callable[[], int]) -> None:
        """`max_bytes` are those of all owners together; `now_ns` is UTC, in nanoseconds since 1970."""
        self._directory, self._owner = directory, owner
        self._max_bytes, self._now_ns = max_bytes, now_ns
        self._lock: int | None = self._locked()

    @property
    def place(self) -> str:
        return str(self._directory.path)

    @property
    def is_gone(self) -> bool:
        """Whether somebody has removed the directory."""
        return self._directory.is_gone

    def add(self, artifact: Artifact, lost: list[Lost]) -> Spooled:
        """Has it on disk. The oldest ones, whoever's they are, make room, and are in `lost` also if it raises.

        Raises TooBig.
        """
        size = size_of(artifact)
        if size > self._max_bytes:
            raise TooBig
        info = artifact.info
        entry = Spooled(info.started_ns, info.capture_id, self._owner, "waiting", size)
        part = f"{info.capture_id}.{self._owner}.part"
        descriptor = self._directory.create(part)
        try:
            # First its length, then room is made: of two who come at once the second one sees what the first will
            # write.
            os.ftruncate(descriptor, size)
            self._make_room(lost)
            write_capture(descriptor, artifact)
            self._directory.rename(part, entry.name)
        except BaseException:
            with suppress(OSError):
                self._directory.remove(part)
            raise
        finally:
            os.close(descriptor)
        try:
            self._directory.sync()
        except OSError:
            with suppress(OSError):
                self._directory.remove(entry.name)  # it is kept elsewhere now
            raise
        return entry

    def check_out(self, entry: Spooled) -> Artifact:
        """Nobody drops it from now on. Raises Gone, or Damaged when it is no capture: then it is removed."""
        going = entry._replace(state="going")
        # Opened before it gets its other name: should that fail, it still waits.
        descriptor, name = self._opened(entry.name, going.name)
        try:
            if name != going.name:
                self._directory.rename(name, going.name)
            return read_capture(descriptor)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, Damaged):
                self._directory.remove(going.name)
            if isinstance(error, FileNotFoundError):
                raise Gone from None
            raise

    def _opened(self, *names: str) -> tuple[int, str]:
        """Under the first of these names that there is: what could not be put back has the second one."""
        for name in names:
            with suppress(FileNotFoundError):
                return self._directory.open(name), name
        raise Gone

    def put_back(self, entry: Spooled) -> None:
        """It waits again."""
        with suppress(FileNotFoundError):
            self._directory.rename(entry._replace(state="going").name, entry.name)

    def remove(self, entry: Spooled) -> None:
        """It is in the store."""
        for state in ("going", "waiting"):
            with suppress(FileNotFoundError):
                self._directory.remove(entry._replace(state=state).name)

    def adopt(self, adopted: list[Spooled], lost: list[Lost]) -> None:
        """Takes over what processes that are no more have left, and drops what is too old or too much.

        What there is of either is in the lists also if it raises: one owner's trouble keeps nobody from another's.
        """
        leftovers: dict[str, list[str]] = {}
        captures: dict[str, list[Spooled]] = {}
        for name, size in self._directory.entries():
            entry = _parsed(name, size)
            if entry is not None:
                captures.setdefault(entry.owner, []).append(entry)
            elif match := _OF_OWNER.fullmatch(name):
                leftovers.setdefault(match["owner"], []).append(name)
        trouble: OSError | None = None
        for owner in (captures.keys() | leftovers.keys()) - {self._owner}:
            try:
                # One by one: those before the trouble are in the list.
                adopted.extend(self._adopt_of(owner, captures.get(owner, ()), leftovers.get(owner, ())))
            except OSError as error:
                trouble = error
        self._directory.touch(f"{self._owner}.lock")
        with suppress(TooBig):  # others are writing, and see to it that there is room
            self._make_room(lost)
        if trouble is not None:
            raise trouble

    def close(self) -> None:
        """This process is done: what it leaves is for others."""
        with suppress(OSError):
            self._directory.remove(f"{self._owner}.lock")
        self.abandon()

    def abandon(self) -> None:
        """In a forked child: the directory stays as it is, it is the parent's."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)  # the parent's lock stays: it has the same open file
        self._directory.close()

    def _locked(self) -> int:
        """The own lock, held."""
        name = f"{self._owner}.lock"
        while True:
            descriptor = self._directory.create(name)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_nlink:
                    return descriptor
            except BaseException:
                os.close(descriptor)
                with suppress(OSError):
                    self._directory.remove(name)
                raise
            os.close(descriptor)  # before it was locked somebody took it for that of a dead owner, and removed it

    def _make_room(self, lost: list[Lost]) -> None:
        """Drops the oldest that wait until there is not too much. Raises TooBig when all would not be enough."""
        waiting: list[Spooled] = []
        others = 0
        for name, size in self._directory.entries():
            entry = _parsed(name, size)
            if entry is not None and entry.state == "waiting":
                waiting.append(entry)
            elif entry is not None or name.endswith(".part"):
                others += size
        total = others + sum(entry.size for entry in waiting)
        oldest_ns = self._now_ns() - MAX_AGE_NS
        for entry in sorted(waiting):
            too_old = entry.started_ns < oldest_ns
            if not too_old and (total <= self._max_bytes or others > self._max_bytes):
                break
            total -= entry.size
            reason = "it is older than 7 days" if too_old else "the spool is full (PROFILE_SPOOL_MAX_BYTES)"
            with suppress(FileNotFoundError):  # another process was quicker, and has told of it
                lost.append(self._drop(entry, reason))
        if others > self._max_bytes:
            raise TooBig

    def _drop(self, entry: Spooled, reason: str) -> Lost:
        lost = lost_file(entry.name, reason)
        with suppress(Damaged, OSError):
            descriptor = self._directory.open(entry.name)
            try:
                artifact = read_capture(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            lost = lost_capture(artifact, reason)
            close_body(artifact)  # now: there may be thousands
        self._directory.remove(entry.name)
        return lost

    def _adopt_of(self, owner: str, captures: Iterable[Spooled], leftovers: Iterable[str]) -> Iterator[Spooled]:
        try:
            lock = self._lock_of_the_dead(owner)
        except _Alive:
            return
        try:
            for entry in captures:
                taken = entry.belongs_to(self._owner)
                try:
                    self._directory.rename(entry.name, taken.name)
                except FileNotFoundError:
                    continue
                yield taken
            for name in leftovers:
                with suppress(FileNotFoundError):
                    self._directory.remove(name)
        finally:
            if lock is not None:
                os.close(lock)

    def _lock_of_the_dead(self, owner: str) -> int | None:
        """Its lock, held from now on; None when it has none. Raises _Alive when it holds it itself."""
        try:
            descriptor = self._directory.open(f"{owner}.lock")
        except (FileNotFoundError, NotPrivate):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:  # a link, which nobody holds
                return None
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise _Alive if isinstance(error, BlockingIOError) else error from None
        return descriptor


def _parsed(name: str, size: int) -> Spooled | None:
    match = _CAPTURE.fullmatch(name)
    return Spooled(int(match["started"]), match["id"], match["owner"], match["state"], size) if match else None
