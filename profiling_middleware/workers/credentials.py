"""Whose process is at the other end of a unix socket, as the kernel says."""

from __future__ import annotations

import os
import socket
import struct

_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid (man 7 unix)


def peer_uid(connection: socket.socket) -> int | None:
    """The effective user id the other end had when it connected or began to listen; None where nobody says."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    return int(uid)


def is_same_user(connection: socket.socket) -> bool:
    """Whether it belongs to this process's user."""
    return peer_uid(connection) == os.geteuid()
