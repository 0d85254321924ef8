"""Who may: the same service reached over TCP, over a unix socket and through a real nginx on the same machine."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from integration_kit.http import Answer, basic, bearer, fetch, receive_all
from integration_kit.servers import Server, Servers, free_port
from integration_kit.tools import need_program
from integration_kit.waiting import eventually

pytestmark = pytest.mark.server

TOKEN = "tell-nobody"
CAPTURE = "/debug/pprof/cpu?seconds=0.2"
ROUTES = [
    "/debug/pprof/",
    CAPTURE,
    "/debug/pprof/wall?seconds=0.2&wait=0",
    "/debug/pprof/cmdline",
    "/debug/pprof/nothing",
]


class Service:
    """A service whose store shows whether a capture was taken."""

    def __init__(self, server: Server, store: Path, socket_path: Path | None = None) -> None:
        self.server = server
        self.socket_path = socket_path
        self._store = store

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        if self.socket_path is not None:
            return fetch(f"http://localhost{path}", headers=headers, socket_path=self.socket_path)
        return self.server.get(path, headers=headers)

    @property
    def works(self) -> bool:
        """Whether it captures anything, or has. (The first request of all loads the routes, on a thread for that.)"""
        threads = {name for name in self.get("/threads").json()["threads"] if name.startswith("profiling-")}
        return bool(threads - {"profiling-service"}) or any(self._store.rglob("*.gz"))


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    # A unix socket's path may have 107 characters: pytest's own folders are too long for that.
    with tempfile.TemporaryDirectory(prefix="pm-") as name:
        Path(name).chmod(0o755)  # nginx's own user must reach the sockets
        yield Path(name)


@pytest.fixture(scope="module")
def services(shared_servers: Servers, directory: Path) -> dict[tuple[str, str], Service]:
    """Over TCP and over a unix socket: a developer's without a token, one with, one where nothing is said."""
    found = {}
    for who, settings in {
        "dev": {"PROFILE_ENVIRONMENT": "dev"},
        "token": {"PROFILE_ENVIRONMENT": "dev", "PROFILE_TOKEN": TOKEN},
        "unsaid": {},
    }.items():
        for way in ("tcp", "unix"):
            store, path = directory / f"store-{who}-{way}", directory / f"{who}.sock"
            options = ("--uds", str(path)) if way == "unix" else ()
            server = shared_servers.uvicorn({**settings, "PROFILE_STORE": store.as_uri()}, *options)
            found[who, way] = Service(server, store, path if way == "unix" else None)
    for service in found.values():
        assert service.server.url  # is up
    return found


def test_a_developer_needs_no_token_on_the_same_machine(services: dict[tuple[str, str], Service]) -> None:
    service = services["dev", "tcp"]
    port = service.server.url.rpartition(":")[2]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost", "[::1]", "127.8.9.10"):
        assert service.get("/debug/pprof/", {"Host": host}).status == 200, host
    assert service.get(CAPTURE, {"Sec-Fetch-Site": "none"}).status == 200
    assert service.get(CAPTURE, {"Sec-Fetch-Site": "same-origin", "Origin": f"http://127.0.0.1:{port}"}).status == 200


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"x-forwarded-prefix": "/"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
    ],
    ids=lambda headers: "-".join(f"{name}={value}" for name, value in headers.items()),
)
def test_pages_of_other_sites_and_proxies_are_refused(
    headers: dict[str, str], path: str, services: dict[tuple[str, str], Service]
) -> None:
    answer = services["dev", "tcp"].get(path, headers)
    assert (answer.status, answer.headers["X-Go-Pprof"]) == (403, "1")
    assert answer.text.startswith("profiling: refused: ")
    assert "PROFILE_TOKEN" in answer.text


def test_what_only_a_proxy_speaks_is_refused(services: dict[tuple[str, str], Service]) -> None:
    address = services["dev", "tcp"].server.url.removeprefix("http://")
    host, _, port = address.partition(":")
    for version, status in (("1.0", b"403"), ("1.1", b"200")):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            request = f"GET /debug/pprof/ HTTP/{version}\r\nHost: {address}\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            assert receive_all(connection).split(b" ")[1] == status


@pytest.mark.parametrize("path", ROUTES)
def test_who_is_not_known_is_refused_and_nothing_is_done(path: str, services: dict[tuple[str, str], Service]) -> None:
    for case in (("dev", "unix"), ("token", "tcp"), ("token", "unix"), ("unsaid", "tcp"), ("unsaid", "unix")):
        service = services[case]
        wrong_ones = [{}, bearer("wrong-token"), basic("any", "wrong"), basic(TOKEN, ""), {"Authorization": TOKEN}]
        for headers in wrong_ones:
            answer = service.get(path, headers)
            assert answer.status == (401 if case[0] == "token" else 403), (case, headers)
            assert answer.headers["X-Go-Pprof"] == "1"
            if case[0] == "token":
                assert answer.headers.get_all("WWW-Authenticate") == [
                    'Basic realm="profiling", charset="UTF-8"',
                    'Bearer realm="profiling"',
                ]
            if case[0] == "unsaid":
                # Nobody has decided anything yet: both ways are named.
                assert "PROFILE_TOKEN" in answer.text
                assert "PROFILE_ENVIRONMENT" in answer.text
    # The services that took a capture for somebody else are not among these.
    for case in (("dev", "unix"), ("unsaid", "tcp"), ("unsaid", "unix")):
        assert not services[case].works


@pytest.mark.parametrize("way", ["tcp", "unix"])
@pytest.mark.parametrize(
    "headers", [bearer(TOKEN), basic("anyone", TOKEN), basic("", TOKEN)], ids=["bearer", "basic", "no user"]
)
def test_with_the_token_all_is_open(
    headers: dict[str, str], way: str, services: dict[tuple[str, str], Service]
) -> None:
    service = services["token", way]
    assert service.get("/debug/pprof/", headers).status == 200
    # With it the other rules are not asked: that is how it is done behind a proxy.
    answer = service.get(CAPTURE, {**headers, "Host": "shop.example", "X-Forwarded-For": "203.0.113.9"})
    assert answer.status == 200
    assert answer.headers["X-Profile-Key"]


def test_two_credentials_in_one_request_are_refused(services: dict[tuple[str, str], Service]) -> None:
    server = services["token", "tcp"].server
    assert server.get("/debug/pprof/", headers={**bearer(TOKEN), "authorization": "Bearer other"}).status == 401


# -- nginx -------------------------------------------------------------------------------------------------------

# A plain `proxy_pass` speaks HTTP/1.0 up to nginx 1.29.6, and later as if these two directives were there.
PLAIN = "proxy_http_version 1.0;"
PLAIN_LATER = 'proxy_http_version 1.1; proxy_set_header Connection "";'
FORWARDED = "proxy_http_version 1.1; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
REAL_IP = "proxy_http_version 1.1; proxy_set_header X-Real-IP $remote_addr;"
HOST = "proxy_http_version 1.1; proxy_set_header Host $http_x_asked_host;"
UNIX = "proxy_http_version 1.1;"
WAYS = {
    "plain": PLAIN,
    "plain-later": PLAIN_LATER,
    "forwarded": FORWARDED,
    "real-ip": REAL_IP,
    "host": HOST,
    "unix": UNIX,
}


class Nginx:
    """A real nginx with one location per way of passing on, before each of two services."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, who: str, way: str, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        name = f"{who}-{way}.localhost"
        given = {"Host": name, "X-Asked-Host": "shop.example", **(headers or {})}
        return fetch(f"http://127.0.0.1:{self._port}{path}", headers=given)


@pytest.fixture(scope="module")
def nginx(shared_servers: Servers, services: dict[tuple[str, str], Service], directory: Path) -> Nginx:
    program = need_program("nginx", "apt-get install nginx-light")
    port = free_port()
    blocks = []
    for who in ("dev", "token"):
        for way, directives in WAYS.items():
            upstream = f"http://unix:{directory / f'{who}.sock'}:" if way == "unix" else services[who, "tcp"].server.url
            blocks.append(
                f"server {{ listen 127.0.0.1:{port}; server_name {who}-{way}.localhost; "
                f"location / {{ {directives} proxy_pass {upstream}; }} }}"
            )
    temporary = "\n".join(
        f"{kind}_temp_path {directory / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # As its packages do it, where that is allowed: as a user of its own.
    user = "user nobody nogroup;" if os.geteuid() == 0 else ""
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"{user} daemon off; pid {directory / 'nginx.pid'}; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off; server_names_hash_bucket_size 128;\n{temporary}\n"
        f"{os.linesep.join(blocks)} }}\n"
    )
    shared_servers.start([program, "-p", str(directory), "-c", str(configuration)], {})

    def answers() -> bool:
        try:
            return fetch(f"http://127.0.0.1:{port}/hello", headers={"Host": "dev-plain.localhost"}).status == 200
        except ConnectionError:
            return False

    eventually(answers, "nginx answers")
    return Nginx(port)


@pytest.mark.parametrize("way", WAYS)
def test_behind_nginx_the_application_is_reached(way: str, nginx: Nginx) -> None:
    assert nginx.get("dev", way, "/hello").text == "hello"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("way", WAYS)
def test_behind_nginx_nobody_is_a_developer(
    way: str, path: str, nginx: Nginx, services: dict[tuple[str, str], Service]
) -> None:
    if way == "plain-later" and os.geteuid() != 0:
        pytest.skip("only root can start nginx as a user of its own, by which alone it is told here")
    service = services["dev", "unix" if way == "unix" else "tcp"]
    before = service.server.facts() if way != "unix" else {}
    answer = nginx.get("dev", way, path)
    assert answer.status == 403
    assert answer.text.startswith("profiling: refused: ")
    if way == "unix":
        assert not service.works
    else:
        assert service.server.facts() == before


@pytest.mark.parametrize("way", WAYS)
def test_behind_nginx_it_takes_the_token(way: str, nginx: Nginx) -> None:
    assert nginx.get("token", way, CAPTURE).status == 401
    assert nginx.get("token", way, CAPTURE, bearer("wrong-token")).status == 401
    assert nginx.get("token", way, CAPTURE, bearer(TOKEN)).status == 200
    assert nginx.get("token", way, CAPTURE, basic("pprof", TOKEN)).status == 200


def test_a_forged_header_does_not_make_a_stranger_local(nginx: Nginx) -> None:
    for header in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
        for value in ("127.0.0.1", "", "::1"):
            assert nginx.get("dev", "forwarded", CAPTURE, {header: value}).status == 403
