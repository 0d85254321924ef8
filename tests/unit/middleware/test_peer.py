"""Whose process is at the other end of a loopback connection."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from profiling_middleware.config import Settings
from profiling_middleware.middleware.access import refusal
from profiling_middleware.middleware.messages import AdminRequest
from profiling_middleware.middleware.peer import foreign_user

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/net/tcp is Linux's")

NOBODY = 65_534
CLIENT = """
import encodings.idna, os, socket, sys  # all that is needed: another user may not read the interpreter's files
os.setuid(int(sys.argv[3]))
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    print(connection.getsockname()[1], flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        server = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {request.param}")
    with server:
        yield server


def ports(connection: socket.socket) -> tuple[int, int]:
    return connection.getpeername()[1], connection.getsockname()[1]


def test_a_client_of_the_same_user_is_no_stranger(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()[:2]), listener.accept()[0] as connection:
        assert foreign_user(*ports(connection)) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_client_of_another_user_is_known_by_its_number(
    listener: socket.socket, make_request: Callable[..., AdminRequest]
) -> None:
    host, port = listener.getsockname()[:2]
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, host, str(port), str(NOBODY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with client:
        listener.settimeout(10)
        with listener.accept()[0] as connection:
            peer_port, own_port = ports(connection)
            found = foreign_user(peer_port, own_port)
            request = make_request(peer=host, peer_port=peer_port, own_port=own_port)
            refused = refusal(request, Settings(environment="dev"))
            with_token = refusal(request, Settings(environment="dev", token="correct-horse"))
        client.communicate()

    assert found == NOBODY
    assert refused is not None
    assert (refused.status, f"user id {NOBODY}".encode() in refused.body) == (403, True)
    assert with_token is not None
    assert with_token.status == 401


@pytest.mark.parametrize(("peer_port", "own_port"), [(None, 8000), (50_000, None), (None, None)])
def test_without_ports_nobody_is_a_stranger(peer_port: int | None, own_port: int | None) -> None:
    assert foreign_user(peer_port, own_port) is None


def test_a_connection_that_does_not_exist_has_no_owner() -> None:
    assert foreign_user(1, 1) is None
