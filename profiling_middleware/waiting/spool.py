"""Captures on disk until they are in the store, in one directory for all workers of a service on this host.

    {started_ns}.{capture id}.{owner}.waiting     a capture; `.going` while its owner puts it, so that nobody drops it
    {owner}.lock                                  locked (flock) by the owner for as long as it lives
    {capture id}.{owner}.part                     being written

An owner is an instance. The captures of one that is no more are for the first that finds them: a rename has one winner.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from profiling_middleware.model import Artifact
from profiling_middleware.private_directory import PrivateDirectory
from profiling_middleware.waiting.capture_file import Damaged, read_capture, size_of, write_capture

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


class Dropped(NamedTuple):
    """A capture that had to make room, or cannot be read."""

    artifact: Artifact | None
    """None where nothing can be said of it."""
    name: str
    reason: str


class Gone(Exception):  # noqa: N818 - it says what is the case
    """Another process has dropped it, or taken it over."""


class TooBig(Exception):  # noqa: N818 - it says what is the case
    """It alone does not fit in."""


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

    def add(self, artifact: Artifact) -> tuple[Spooled, list[Dropped]]:
        """Has it on disk, and drops the oldest ones, whoever's they are, that it leaves no room for. Raises TooBig."""
        size = size_of(artifact)
        if size > self._max_bytes:
            raise TooBig
        dropped = list(self._make_room(size))
        info = artifact.info
        entry = Spooled(info.started_ns, info.capture_id, self._owner, "waiting", size)
        part = f"{info.capture_id}.{self._owner}.part"
        descriptor = self._directory.create(part)
        try:
            write_capture(descriptor, artifact)
            self._directory.rename(part, entry.name)
        except OSError:
            with suppress(OSError):
                self._directory.remove(part)
            raise
        finally:
            os.close(descriptor)
        self._directory.sync()
        return entry, dropped

    def check_out(self, entry: Spooled) -> Artifact:
        """Nobody drops it from now on. Raises Gone, or Damaged when it is no capture: then it is removed."""
        going = entry._replace(state="going")
        try:
            self._directory.rename(entry.name, going.name)
            descriptor = self._directory.open(going.name)
        except FileNotFoundError:
            raise Gone from None
        try:
            return read_capture(descriptor)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, Damaged):
                self._directory.remove(going.name)
            raise

    def put_back(self, entry: Spooled) -> None:
        """It waits again."""
        with suppress(FileNotFoundError):
            self._directory.rename(entry._replace(state="going").name, entry.name)

    def remove(self, entry: Spooled) -> None:
        """It is in the store."""
        for state in ("going", "waiting"):
            with suppress(FileNotFoundError):
                self._directory.remove(entry._replace(state=state).name)

    def adopt(self) -> tuple[list[Spooled], list[Dropped]]:
        """Takes over what processes that are no more have left, and drops what is too old or too much."""
        adopted: list[Spooled] = []
        leftovers: dict[str, list[str]] = {}
        captures: dict[str, list[Spooled]] = {}
        for name, size in self._directory.entries():
            entry = _parsed(name, size)
            if entry is not None:
                captures.setdefault(entry.owner, []).append(entry)
            elif match := _OF_OWNER.fullmatch(name):
                leftovers.setdefault(match["owner"], []).append(name)
        for owner in (captures.keys() | leftovers.keys()) - {self._owner}:
            adopted += self._adopt_of(owner, captures.get(owner, ()), leftovers.get(owner, ()))
        dropped = list(self._make_room(0))
        return adopted, dropped

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
        while True:
            descriptor = self._directory.create(f"{self._owner}.lock")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)  # before it was locked somebody took it for that of a dead owner, and removed it

    def _captures(self) -> Iterator[Spooled]:
        for name, size in self._directory.entries():
            entry = _parsed(name, size)
            if entry is not None:
                yield entry

    def _make_room(self, wanted: int) -> Iterator[Dropped]:
        captures = sorted(self._captures())
        total = sum(entry.size for entry in captures) + wanted
        oldest_ns = self._now_ns() - MAX_AGE_NS
        for entry in captures:
            too_old = entry.started_ns < oldest_ns
            if entry.state == "going" or (total <= self._max_bytes and not too_old):
                continue
            total -= entry.size
            reason = "it is older than 7 days" if too_old else "the spool is full (PROFILE_SPOOL_MAX_BYTES)"
            try:
                yield self._drop(entry, reason)
            except FileNotFoundError:
                continue  # another process was quicker, and has told of it

    def _drop(self, entry: Spooled, reason: str) -> Dropped:
        artifact = None
        with suppress(Damaged, OSError):
            descriptor = self._directory.open(entry.name)
            try:
                artifact = read_capture(os.dup(descriptor))
            finally:
                os.close(descriptor)
        self._directory.remove(entry.name)
        return Dropped(artifact, entry.name, reason)

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
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _Alive from None
        return descriptor


def _parsed(name: str, size: int) -> Spooled | None:
    match = _CAPTURE.fullmatch(name)
    return Spooled(int(match["started"]), match["id"], match["owner"], match["state"], size) if match else None
