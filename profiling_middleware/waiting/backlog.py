"""All captures of this process that wait for the store, oldest first."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from profiling_middleware.model import Artifact
from profiling_middleware.waiting.capture_file import Damaged, close_body
from profiling_middleware.waiting.lost import Lost, lost_capture, lost_file
from profiling_middleware.waiting.memory import Memory
from profiling_middleware.waiting.spool import Gone, Spool, Spooled, TooBig

_FULL_MEMORY = "memory for waiting captures is full"


class Backlog:
    """On disk, and in memory what the spool does not take. From any thread; one of them takes captures out."""

    def __init__(self, open_spool: Callable[[], Spool] | None, memory: Memory, logger: logging.Logger) -> None:
        """`open_spool` is called when it is first needed, and again after the directory has gone. None: no spool."""
        self._open_spool = open_spool
        self._memory = memory
        self._logger = logger
        self._spool: Spool | None = None
        self._trouble: str | None = None
        self._order: dict[str, Spooled | Artifact] = {}
        self._put_back: set[str] = set()
        """Of them, those that have been tried."""
        self._going: str | None = None
        self._closed = False
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        """Never held while the disk works: a page that shows what waits must not wait for it."""

    @property
    def waiting(self) -> tuple[int, int]:
        """How many captures wait for the store, and their bytes."""
        with self._lock:
            return len(self._order), sum(_size(entry) for entry in self._order.values())

    @property
    def spooled(self) -> tuple[int, int]:
        """How many of them are on disk, and their bytes."""
        with self._lock:
            sizes = [entry.size for entry in self._order.values() if isinstance(entry, Spooled)]
        return len(sizes), sum(sizes)

    @property
    def place(self) -> str:
        """Where they wait, for log lines and people."""
        spool = self._spool
        return spool.place if spool is not None and self._trouble is None else "memory"

    @property
    def spool_place(self) -> str | None:
        """Where the spool is, whether or not it can be used now; None before there is one."""
        spool = self._spool
        return spool.place if spool is not None else None

    @property
    def trouble(self) -> str | None:
        """Why the spool cannot be used; None when it can, or has not been tried yet."""
        return self._trouble

    def add(self, artifact: Artifact) -> list[Lost]:
        """Keeps it, and returns what has been dropped to make room."""
        lost: list[Lost] = []
        with self._lock:
            closed = self._closed
        if closed:
            return [lost_capture(artifact, "the service has stopped")]
        try:
            entry = self._spooled(artifact, lost)
        except TooBig:
            entry = None
        if entry is None:
            return lost + self._remember(artifact)
        self._enter(artifact.info.capture_id, entry)
        self._spool_memory(lost)
        return lost

    def adopt(self) -> tuple[int, list[Lost]]:
        """Takes over what processes that are no more have left; returns how much that is, and what was dropped."""
        adopted: list[Spooled] = []
        lost: list[Lost] = []
        try:
            spool = self._opened()
            if spool is None:
                return 0, []
            spool.adopt(adopted, lost)
        except OSError as error:
            self._failed(error)
        else:
            self._worked()
        with self._lock:
            self._order |= {entry.capture_id: entry for entry in adopted}
            self._order = dict(sorted(self._order.items(), key=self._place_in_order))
        return len(adopted), self._forget(lost)

    def take(self, *, safe: bool = True) -> tuple[Artifact | None, list[Lost]]:
        """The first one that can be read, until `done` or `put_back` says what became of it; None when there is none.

        Without `safe`, of those that this process must put, or they are lost.
        """
        lost: list[Lost] = []
        for capture_id in list(self._order):
            with self._lock:
                entry = self._order.get(capture_id)
                self._going = capture_id if entry is not None else None
            if entry is None or (isinstance(entry, Spooled) and not safe):
                continue
            try:
                return self._check_out(entry), lost
            except Gone:
                self._leave(capture_id)
                # Who drops it tells of it. Nobody does who clears the directory.
                self._logger.warning(
                    "profiling: file=%s is no more in the spool: another process dropped it, or somebody removed it",
                    _name(entry),
                )
            except Damaged:
                self._leave(capture_id)
                lost.append(lost_file(_name(entry), "it is damaged"))
            except OSError as error:
                self._failed(error)
        self._going = None
        return None, lost

    def done(self, artifact: Artifact) -> None:
        """It is in the store."""
        self._going = None
        entry = self._leave(artifact.info.capture_id)
        if isinstance(entry, Spooled):
            close_body(artifact)
            self._try(lambda spool: spool.remove(entry))
        else:
            self._memory.remove(artifact.info.capture_id)

    def put_back(self, artifact: Artifact) -> list[Lost]:
        """To the end: if the fault is this capture's own, it must not stop the others. Returns what was dropped."""
        self._going = None
        entry = self._leave(artifact.info.capture_id)
        if isinstance(entry, Spooled):
            close_body(artifact)  # now, and not when the collector finds the exception that holds it
            self._try(lambda spool: spool.put_back(entry))
        if entry is None:
            return []
        with self._lock:
            self._order[artifact.info.capture_id] = entry
            self._put_back.add(artifact.info.capture_id)
        return self._forgotten(self._memory.trim())

    def is_safe(self, artifact: Artifact) -> bool:
        """Whether it waits for the next process if this one ends."""
        return isinstance(self._order.get(artifact.info.capture_id), Spooled)

    def close(self) -> list[Lost]:
        """What is in the spool stays there for the next process; returns what is not."""
        with self._lock:
            self._closed = True
            entries = list(self._order.values())
            self._order.clear()
        if self._spool is not None:
            self._spool.close()
        return [lost_capture(entry, "the service stops") for entry in entries if isinstance(entry, Artifact)]

    def abandon(self) -> None:
        """In a forked child: all of it is the parent's. Takes no lock: who held it is not in the child."""
        if self._spool is not None:
            self._spool.abandon()

    # -- the spool -----------------------------------------------------------------------------------------------

    def _opened(self) -> Spool | None:
        with self._opening:
            if self._spool is None and self._open_spool is not None:
                self._spool = self._open_spool()
            return self._spool

    def _spooled(self, artifact: Artifact, lost: list[Lost]) -> Spooled | None:
        """None when the spool cannot be used. Raises TooBig."""
        for again in (False, True):
            dropped: list[Lost] = []
            try:
                spool = self._opened()
                if spool is None:
                    return None
                entry = spool.add(artifact, dropped)
            except FileNotFoundError as error:
                lost += self._reopen()
                if again:
                    self._failed(error)
            except OSError as error:
                self._failed(error)
                return None
            else:
                self._worked()
                return entry
            finally:
                lost += self._forget(dropped)
        return None

    def _reopen(self) -> list[Lost]:
        """The next time: somebody tidied up. Returns what went with the directory."""
        spool, self._spool = self._spool, None
        if spool is None:
            return []
        is_gone = spool.is_gone
        spool.close()
        if not is_gone:
            return []
        with self._lock:
            gone = [entry for entry in self._order.values() if isinstance(entry, Spooled)]
        return self._forget(
            [Lost(f"file={entry.name}", "the spool has been removed", entry.capture_id) for entry in gone]
        )

    def _spool_memory(self, lost: list[Lost]) -> None:
        """What had to be kept in memory while the spool did not work."""
        with self._lock:
            held = [entry for entry in self._order.values() if isinstance(entry, Artifact)]
        for artifact in held:
            capture_id = artifact.info.capture_id
            if capture_id == self._going:
                continue
            try:
                entry = self._spooled(artifact, lost)
            except TooBig:
                continue
            if entry is None:
                return
            self._memory.remove(capture_id)
            with self._lock:
                still_waits = capture_id in self._order
                if still_waits:
                    self._order[capture_id] = entry
            if not still_waits:  # it got into the store, or was dropped, meanwhile
                self._try(lambda spool, entry=entry: spool.remove(entry))  # type: ignore[misc]

    def _check_out(self, entry: Spooled | Artifact) -> Artifact:
        if isinstance(entry, Artifact):
            return entry
        if self._spool is None:
            raise Gone
        return self._spool.check_out(entry)

    def _try(self, action: Callable[[Spool], object]) -> None:
        try:
            if self._spool is not None:
                action(self._spool)
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if reason != self._trouble:
            self._trouble = reason
            # What cannot be opened has no place yet, but the system says which name it has refused.
            place = self._spool.place if self._spool is not None else error.filename
            self._logger.error(
                "profiling: the spool cannot be used (%s%s), captures wait in memory: make it writable and make room "
                "there, or name another directory in PROFILE_SPOOL_DIR",
                f"{place}: " if place else "",
                reason,
            )

    def _worked(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self._logger.warning("profiling: the spool can be used again")

    # -- the order -----------------------------------------------------------------------------------------------

    def _remember(self, artifact: Artifact) -> list[Lost]:
        dropped = self._memory.add(artifact, self._going)
        if artifact not in dropped:
            self._enter(artifact.info.capture_id, artifact)
        return self._forgotten(dropped)

    def _forgotten(self, dropped: list[Artifact]) -> list[Lost]:
        """Of what had to make room in memory."""
        return self._forget([lost_capture(one, _FULL_MEMORY) for one in dropped])

    def _forget(self, lost: list[Lost]) -> list[Lost]:
        for one in lost:
            self._leave(one.capture_id)
        return lost

    def _enter(self, capture_id: str, entry: Spooled | Artifact) -> None:
        with self._lock:
            self._order[capture_id] = entry

    def _place_in_order(self, item: tuple[str, Spooled | Artifact]) -> tuple[bool, int]:
        """By time; those that could not be put come behind, as they are."""
        capture_id, entry = item
        if capture_id in self._put_back:
            return True, 0
        return False, entry.started_ns if isinstance(entry, Spooled) else entry.info.started_ns

    def _leave(self, capture_id: str) -> Spooled | Artifact | None:
        with self._lock:
            self._put_back.discard(capture_id)
            return self._order.pop(capture_id, None)


def _name(entry: Spooled | Artifact) -> str:
    return entry.name if isinstance(entry, Spooled) else entry.key


def _size(entry: Spooled | Artifact) -> int:
    return entry.size if isinstance(entry, Spooled) else len(entry.body)
