"""Where the workers of a service on this host find one another: a directory of their user's alone.

{instance}.sock     a worker listens here; renamed to this once it does, so whoever is refused here has found a dead one
{instance}.json     what it says of itself, there before the socket is
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from profiling_middleware.config import DEFAULT_SERVICE_NAME, Settings
from profiling_middleware.descriptors import above_standard_streams
from profiling_middleware.private_directory import open_below
from profiling_middleware.workers.credentials import is_same_user

_SOCKET = re.compile(r"(?P<instance>[A-Za-z0-9-]+-(?P<pid>\d+)-[0-9a-f]{8})\.sock")
_BACKLOG = 64
_MAX_CARD_BYTES = 4096
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Unreachable(Exception):  # noqa: N818 - it says what is the case
    """A worker is there and cannot be spoken to; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process of the service on this host."""

    pid: int
    instance: str
    enabled: bool
    """Whether it captures periodically."""
    started_ns: int | None
    """Since when its profiler is, in nanoseconds since 1970; None when it is not."""


class Meeting:
    """One process's side of the directory. All methods raise OSError when the directory cannot be used."""

    def __init__(self, settings: Settings, same_user: Callable[[socket.socket], bool] = is_same_user) -> None:
        """Opens it, made if it is not there."""
        self._directory = open_below(settings.spool_dir, meeting_name(settings))
        self._same_user = same_user

    def listen(self, worker: Worker) -> socket.socket:
        """A socket on which others reach this process."""
        if not hasattr(socket, "SO_PEERCRED"):
            raise OSError("this system does not say who connects to a socket")
        listening = new_socket()
        begun, name = f"{worker.instance}.new", f"{worker.instance}.sock"
        try:
            listening.bind(self._directory.socket_path(begun))
            listening.listen(_BACKLOG)
            self._write_card(worker)
            self._directory.rename(begun, name)
        except OSError:
            listening.close()
            for left in (begun, *_cards(worker.instance)):
                with suppress(OSError):
                    self._directory.remove(left)
            raise
        return listening

    def tell(self, worker: Worker) -> None:
        """From now on this is what others find of a worker that listens."""
        self._write_card(worker)

    def stay(self, instance: str) -> None:
        """Keeps its files from being taken for forgotten ones. Raises OSError when they are gone."""
        for name in (f"{instance}.sock", f"{instance}.json"):
            self._directory.touch(name)

    def leave(self, instance: str) -> None:
        """Nobody finds this worker any more."""
        for name in (f"{instance}.sock", *_cards(instance)):
            with suppress(FileNotFoundError):
                self._directory.remove(name)

    def others(self, own: Collection[str]) -> dict[str, int]:
        """Instance and process id of every worker but this one, whose instances are `own`, whether it lives or not."""
        found = {}
        for name in self._directory.sockets():
            match = _SOCKET.fullmatch(name)
            if match is not None and match["instance"] not in own:
                found[match["instance"]] = int(match["pid"])
        return found

    def connect(self, instance: str) -> socket.socket | None:
        """A connection to a worker; None when it is no more: what it has left is removed. Raises Unreachable."""
        connection = new_socket()
        try:
            connection.connect(self._directory.socket_path(f"{instance}.sock"))
        except (ConnectionRefusedError, FileNotFoundError):
            connection.close()
            self.leave(instance)
            return None
        except BlockingIOError:
            connection.close()
            raise Unreachable("accepts no connections") from None
        except OSError as error:
            connection.close()
            raise Unreachable(f"cannot be reached: {error.strerror}") from None
        if not self._same_user(connection):
            connection.close()
            raise Unreachable("belongs to another user")
        return connection

    def accept(self, listening: socket.socket) -> socket.socket | None:
        """The next connection of a process of this user, None when there is none. Others' are closed."""
        with suppress(BlockingIOError, ConnectionAbortedError):
            connection, _ = listening.accept()
            connection = _kept_apart(connection)
            if self._same_user(connection):
                return connection
            connection.close()
        return None

    def workers(self, own: Collection[str]) -> list[Worker]:
        """Every worker but this one, whose instances are `own`, that lives, by process id."""
        found = []
        for other, pid in self.others(own).items():
            with suppress(Unreachable):
                connection = self.connect(other)
                if connection is not None:
                    connection.close()
                    found.append(self._read_card(other, pid))
        return sorted(found, key=lambda worker: worker.pid)

    def close(self) -> None:
        """In a forked child, too: the directory stays as it is."""
        self._directory.close()

    def _write_card(self, worker: Worker) -> None:
        card = json.dumps({"enabled": worker.enabled, "started_ns": worker.started_ns}).encode()
        name, begun = _cards(worker.instance)
        descriptor = self._directory.create(begun)
        try:
            os.write(descriptor, card)
        finally:
            os.close(descriptor)
        self._directory.rename(begun, name)

    def _read_card(self, instance: str, pid: int) -> Worker:
        card: object = None
        with suppress(OSError, ValueError):
            descriptor = self._directory.open(f"{instance}.json")
            try:
                card = json.loads(os.read(descriptor, _MAX_CARD_BYTES))
            finally:
                os.close(descriptor)
        said = card if isinstance(card, dict) else {}
        started_ns = said.get("started_ns")
        return Worker(
            pid=pid,
            instance=instance,
            enabled=said.get("enabled") is True,
            started_ns=started_ns if isinstance(started_ns, int) else None,
        )


def _cards(instance: str) -> tuple[str, str]:
    """What a worker says of itself, and that while it is being written."""
    return f"{instance}.json", f"{instance}.json.new"


def new_socket() -> socket.socket:
    """A unix socket that never waits."""
    return _kept_apart(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))


def _kept_apart(connection: socket.socket) -> socket.socket:
    kept = socket.socket(fileno=above_standard_streams(connection.detach()))
    kept.setblocking(False)
    return kept


def meeting_name(settings: Settings) -> str:
    """The directory of one service: whoever has the same name, the same settings of who may ask and where captures go.

    A service that nobody has named is known by its working directory, so that two of them do not meet. And by the
    host's start, because the directory may lie on a disk that hosts share.
    """
    service = settings.service_name
    identity = [service, settings.environment, settings.token, settings.store, settings.bucket_name, _host()]
    if service == DEFAULT_SERVICE_NAME:
        with suppress(OSError):
            identity.append(str(Path.cwd()))
    return f"{service}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}.workers"


def _host() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return socket.gethostname()
