"""Targets and headers as they come over the wire: what real servers make of them, and who answers."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from integration_kit.http import fetch, receive_all
from integration_kit.servers import Server, Servers, free_port
from integration_kit.tools import need_program
from integration_kit.waiting import eventually

pytestmark = pytest.mark.server

TOKEN = "tell-nobody"
OURS, APPLICATION = "ours", "the application"

TARGETS = [
    ("/debug/pprof/cmdline", OURS),
    ("/debug/pprof", OURS),
    ("/debug/pprof?x", OURS),
    ("/debug/pprof/?", OURS),
    # Servers decode the target before anyone sees it: these are the same path, and as closed.
    ("/%64ebug/pprof/cmdline", OURS),
    ("/%64%65%62%75%67/%70%70%72%6F%66/cmdline", OURS),
    ("/debug%2Fpprof/cmdline", OURS),
    ("/debug/pprof%2fcmdline", OURS),
    ("/debug/pprof/..", OURS),
    ("/debug/pprof/%2e%2e/orders", OURS),
    ("/debug/pprof/;x", OURS),
    ("/debug%252Fpprof/cmdline", APPLICATION),
    ("//debug/pprof/cmdline", APPLICATION),
    ("/debug//pprof/cmdline", APPLICATION),
    ("/x/../debug/pprof/cmdline", APPLICATION),
    ("/x/%2e%2e/debug/pprof/cmdline", APPLICATION),
    ("/DEBUG/pprof/cmdline", APPLICATION),
    ("/debug/pprof;x/cmdline", APPLICATION),
    ("/debug/pprof%20", APPLICATION),
    ("/debug/pprof%00", APPLICATION),
    ("/debug/pprof%3Fx", APPLICATION),
    ("/debug/pprof%ff", APPLICATION),
]


@pytest.fixture(scope="module", params=["uvicorn", "gunicorn"])
def server(request: pytest.FixtureRequest, shared_servers: Servers) -> Server:
    settings = {"PROFILE_ENVIRONMENT": "dev", "PROFILE_TOKEN": TOKEN}
    if request.param == "uvicorn":
        return shared_servers.uvicorn(settings)
    return shared_servers.gunicorn(settings, "--threads", "4", hook=False)


def raw(url: str, request: bytes) -> bytes:
    """Sends just these bytes, and returns all that comes back."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        connection.sendall(request)
        return receive_all(connection)


def get(target: str, *headers: str) -> bytes:
    lines = [f"GET {target} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize(("target", "whose"), TARGETS)
def test_a_target_is_ours_or_the_applications(server: Server, target: str, whose: str) -> None:
    answer = raw(server.url, get(target))

    assert (b" 401 " in answer[:20]) == (whose == OURS), answer
    assert (b"profiling: refused" in answer) == (whose == OURS)
    assert answer[:12] in (b"HTTP/1.1 401", b"HTTP/1.1 404", b"HTTP/1.1 200")


@pytest.mark.parametrize("target", [f"http://localhost{path}" for path in ("/debug/pprof/cmdline", "//debug/pprof/x")])
def test_an_absolute_target_opens_nothing(server: Server, target: str) -> None:
    answer = raw(server.url, get(target))

    assert answer[:12] in (b"HTTP/1.1 401", b"HTTP/1.1 404", b"HTTP/1.1 200")
    assert b"uvicorn\0" not in answer
    assert b"gunicorn\0" not in answer


@pytest.mark.parametrize(
    "headers",
    [
        (f"Authorization: Bearer {TOKEN}", f"Authorization: Bearer {TOKEN}"),
        ("Authorization: Bearer x", f"authorization: Bearer {TOKEN}"),
        (f"Authorization: Bearer x, Bearer {TOKEN}",),
        ("Authorization: Bearer", f" {TOKEN} x"),
        (f"Authorization : Bearer {TOKEN}",),
        (f"Authorization\t: Bearer {TOKEN}",),
        (f" Authorization: Bearer {TOKEN}",),
        (f"X-A: b\nAuthorization: Bearer {TOKEN} x",),
        ("Authorization: Bearer \xff",),
        (f"Authorization: Bearer {TOKEN}\xa0",),
        (f"Proxy-Authorization: Bearer {TOKEN}",),
        (f"HTTP_AUTHORIZATION: Bearer {TOKEN}",),
    ],
)
def test_a_header_that_two_could_read_differently_opens_nothing(server: Server, headers: tuple[str, ...]) -> None:
    answer = raw(server.url, get("/debug/pprof/cmdline", *headers))

    assert answer[:12] in (b"HTTP/1.1 401", b"HTTP/1.1 400"), answer
    assert TOKEN.encode() not in answer
    assert TOKEN not in server.log


def test_the_token_opens(server: Server) -> None:
    assert raw(server.url, get("/debug/pprof/cmdline", f"Authorization: Bearer {TOKEN}"))[:12] == b"HTTP/1.1 200"


def test_a_head_request_is_refused_without_a_body(server: Server) -> None:
    """A body there would be taken for the next answer of the connection."""
    head = get("/debug/pprof/cmdline", f"Authorization: Bearer {TOKEN}").replace(b"GET", b"HEAD", 1)

    answer = raw(server.url, head)

    assert answer[:12] == b"HTTP/1.1 405"
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("location / { proxy_pass UP; }", "/debug/pprof/cmdline"),
        ("location /shop/ { proxy_pass UP/; }", "/shop/debug/pprof/cmdline"),
        ("location /shop/ { proxy_pass UP/; }", "/shop//debug/pprof/cmdline"),
        ("location /x/ { rewrite ^/x/(.*)$ /debug/pprof/$1 break; proxy_pass UP; }", "/x/cmdline"),
        ("location /debug/ { return 444; } location / { proxy_pass UP; }", "/%64ebug/pprof/cmdline"),
        ("location /debug/ { return 444; } location / { proxy_pass UP; }", "//debug/pprof/cmdline"),
        ("location /debug/ { return 444; } location / { proxy_pass UP; }", "/x/../debug/pprof/cmdline"),
        ("merge_slashes off; location /debug/ { return 444; } location / { proxy_pass UP; }", "//debug/pprof/cmdline"),
    ],
)
def test_whatever_a_proxy_rewrites_it_takes_the_token(
    server: Server, servers: Servers, tmp_path: Path, location: str, target: str
) -> None:
    program, port = need_program("nginx", "apt-get install nginx-light"), free_port()
    temporary = "".join(
        f"{kind}_temp_path {tmp_path / kind}; " for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    )
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {tmp_path / 'nginx.pid'}; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; {temporary}\nserver {{ listen 127.0.0.1:{port}; {location.replace('UP', server.url)} "
        f"location = /ready {{ return 200; }} }} }}\n"
    )
    servers.start([program, "-p", str(tmp_path), "-c", str(configuration)], dict(os.environ))

    def is_up() -> bool:
        try:
            return fetch(f"http://127.0.0.1:{port}/ready").status == 200
        except ConnectionError:
            return False

    eventually(is_up, "nginx answers")
    answer = raw(f"http://127.0.0.1:{port}", get(target))

    assert answer[:12] in (b"", b"HTTP/1.1 401", b"HTTP/1.1 404", b"HTTP/1.1 200"), answer
    assert b"unicorn\0" not in answer
    if b" 200 " in answer[:20]:
        assert answer.endswith(b"hello")
