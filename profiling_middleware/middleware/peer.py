"""Whose process is at the other end of a loopback connection, from `/proc/net/tcp`.

A reverse proxy on the same machine connects from loopback, too, and need not add a header that betrays it. But it
runs under a user of its own, where a developer's tools run under the service's or under root.
"""

from __future__ import annotations

import os
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
# Columns of /proc/net/tcp: https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
_LOCAL, _REMOTE, _UID = 1, 2, 7


def foreign_user(peer_port: int | None, own_port: int | None) -> int | None:
    """The user id that owns the peer's end, if it is neither this process's nor root; None if it is, or unknown."""
    if peer_port is None or own_port is None:
        return None
    trusted = {0, os.geteuid(), os.getuid()}
    for table in _TABLES:
        for uid in _owners(table, peer_port, own_port):
            if uid not in trusted:
                return uid
    return None


def _owners(table: Path, peer_port: int, own_port: int) -> list[int]:
    """Who owns the connections from one port to the other."""
    local, remote = f":{peer_port:04X}", f":{own_port:04X}"
    owners = []
    try:
        with table.open(encoding="ascii") as lines:
            for line in lines:
                columns = line.split()
                ends = len(columns) > _UID and columns[_LOCAL].endswith(local) and columns[_REMOTE].endswith(remote)
                if ends:
                    owners.append(int(columns[_UID]))
    except (OSError, ValueError):
        return []
    return owners
