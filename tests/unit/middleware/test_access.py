"""Who may use /debug/pprof/: every line of the rule, each way in and each way out."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiling_middleware.config import Settings
from profiling_middleware.middleware.access import refusal
from profiling_middleware.middleware.messages import AdminRequest

MakeRequest = Callable[..., AdminRequest]

TOKEN = "correct-horse:battery~staple"
SECRET = Settings(environment="prod", token=TOKEN)
DEVELOPER = Settings(environment="dev")


def basic(user: str, password: str, scheme: str = "Basic") -> tuple[str, str]:
    return ("authorization", f"{scheme} {base64.b64encode(f'{user}:{password}'.encode()).decode()}")


def bearer(token: str, scheme: str = "Bearer") -> tuple[str, str]:
    return ("authorization", f"{scheme} {token}")


def status(request: AdminRequest, settings: Settings) -> int | None:
    """None for one who may."""
    answer = refusal(request, settings)
    return None if answer is None else answer.status


def reason(request: AdminRequest, settings: Settings) -> str:
    answer = refusal(request, settings)
    assert answer is not None
    return answer.body.decode()


# -- with a token -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        bearer(TOKEN),
        bearer(TOKEN, "bearer"),
        bearer(TOKEN, "BEARER"),
        bearer(f"  {TOKEN}  "),
        basic("", TOKEN),
        basic("anyone", TOKEN),
        basic("us\u00e9r", TOKEN),
        basic("pprof", TOKEN, "basic"),
    ],
)
def test_whoever_knows_the_token_may(make_request: MakeRequest, header: tuple[str, str]) -> None:
    assert status(make_request(header), SECRET) is None


@pytest.mark.parametrize(
    "header",
    [
        bearer(TOKEN[:-1]),
        bearer(TOKEN + "x"),
        bearer(TOKEN.upper()),
        bearer(""),
        bearer("Bearer " + TOKEN),
        bearer(TOKEN.partition(":")[2]),
        ("authorization", TOKEN),
        ("authorization", ""),
        ("authorization", "Bearer"),
        bearer(TOKEN, "Token"),
        bearer(TOKEN, "Digest"),
        bearer(TOKEN, "Basic"),
        bearer(TOKEN, "Bearer,"),
        ("authorization", f"Bearer\t{TOKEN}"),
        ("authorization", f"Bearer {TOKEN}, Bearer {TOKEN}"),
        basic(TOKEN, ""),
        basic("user", TOKEN[:-1]),
        basic("user", "x" + TOKEN),
        basic("user:x", TOKEN),
        basic("user", TOKEN, "Bearer"),
        ("authorization", "Basic " + base64.b64encode(TOKEN.replace(":", "").encode()).decode()),
        ("authorization", "Basic " + base64.b64encode(f"user:{TOKEN}".encode()).decode().rstrip("=")[:-1]),
        ("authorization", "Basic !!!!"),
        ("authorization", "Basic \u00e9"),
        ("x-authorization", f"Bearer {TOKEN}"),
        ("proxy-authorization", f"Bearer {TOKEN}"),
        ("cookie", f"authorization=Bearer {TOKEN}"),
    ],
)
def test_whoever_does_not_send_the_token_may_not(make_request: MakeRequest, header: tuple[str, str]) -> None:
    assert status(make_request(header), SECRET) == 401


def test_the_token_in_the_query_opens_nothing(make_request: MakeRequest) -> None:
    assert status(make_request(query=f"token={TOKEN}"), SECRET) == 401


@pytest.mark.parametrize(
    "headers",
    [
        (bearer(TOKEN), bearer(TOKEN)),
        (bearer(TOKEN), bearer("wrong")),
        (bearer("wrong"), bearer(TOKEN)),
        (bearer(TOKEN), basic("user", TOKEN)),
    ],
)
def test_two_authorization_headers_open_nothing(
    make_request: MakeRequest, headers: tuple[tuple[str, str], tuple[str, str]]
) -> None:
    assert status(make_request(*headers), SECRET) == 401


@pytest.mark.parametrize("environment", [None, "dev", "local", "test", "staging", "prod"])
def test_where_a_token_is_set_this_machine_needs_it_too(make_request: MakeRequest, environment: str | None) -> None:
    needs_token = Settings(environment=environment, token=TOKEN)

    assert status(make_request(), needs_token) == 401
    assert status(make_request(bearer(TOKEN)), needs_token) is None


@pytest.mark.parametrize("peer", ["10.0.0.1", "203.0.113.9", "2001:db8::1", None])
def test_with_the_token_one_may_come_from_anywhere_and_through_proxies(
    make_request: MakeRequest, peer: str | None
) -> None:
    request = make_request(
        bearer(TOKEN),
        ("x-forwarded-for", "203.0.113.9"),
        ("via", "1.1 proxy"),
        ("origin", "https://grafana.example"),
        ("host", "shop.example"),
        without=("host",),
        peer=peer,
        http_version="1.0",
    )

    assert status(request, SECRET) is None


def test_the_refusal_asks_for_the_token_in_both_ways_and_does_not_show_it(make_request: MakeRequest) -> None:
    answer = refusal(make_request(bearer("wrong")), SECRET)

    assert answer is not None
    assert [value for name, value in answer.headers if name == "WWW-Authenticate"] == [
        'Basic realm="profiling", charset="UTF-8"',
        'Bearer realm="profiling"',
    ]
    assert ("X-Go-Pprof", "1") in answer.headers
    assert b"PROFILE_TOKEN" in answer.body
    assert TOKEN.encode() not in answer.body


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_no_authorization_header_breaks_anything_or_opens_the_door(make_request: MakeRequest, value: str) -> None:
    assert status(make_request(("authorization", value)), SECRET) == 401
    assert status(make_request(("authorization", f"Basic {value}")), SECRET) == 401


# -- without a token: the environment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ["dev", "local", "test"])
def test_a_developer_on_this_machine_may(make_request: MakeRequest, environment: str) -> None:
    assert status(make_request(), Settings(environment=environment)) is None


@pytest.mark.parametrize("environment", [None, "prod", "staging", "development", "dev2", "testing"])
def test_elsewhere_nobody_may_without_a_token(make_request: MakeRequest, environment: str | None) -> None:
    assert status(make_request(), Settings(environment=environment)) == 403


def test_a_token_that_nobody_asked_for_opens_nothing(make_request: MakeRequest) -> None:
    assert status(make_request(bearer("whatever-it-is")), Settings(environment="prod")) == 403


def test_the_refusal_names_both_remedies_when_the_environment_is_not_set(make_request: MakeRequest) -> None:
    text = reason(make_request(), Settings())

    assert "set PROFILE_TOKEN and send it" in text
    assert "set PROFILE_ENVIRONMENT to dev, local or test (it is not set)" in text


def test_the_refusal_says_which_environment_it_is(make_request: MakeRequest) -> None:
    assert "(it is 'prod')" in reason(make_request(), Settings(environment="prod"))


# -- without a token: the peer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.5.5.5", "127.255.255.254", "::1", "::ffff:127.0.0.1"])
def test_a_peer_on_the_loopback_may(make_request: MakeRequest, peer: str) -> None:
    assert status(make_request(peer=peer), DEVELOPER) is None


@pytest.mark.parametrize(
    "peer",
    [
        "10.0.0.1",
        "192.168.1.2",
        "172.17.0.1",
        "0.0.0.0",
        "128.0.0.1",
        "126.255.255.255",
        "::",
        "::2",
        "fe80::1",
        "::ffff:10.0.0.1",
        "2001:db8::1",
        "localhost",
        "testclient",
        "unix:",
        "",
        "127.1",
        "127.0.0.1:80",
        "1",
    ],
)
def test_a_peer_from_elsewhere_may_not(make_request: MakeRequest, peer: str) -> None:
    assert status(make_request(peer=peer), DEVELOPER) == 403
    assert "set PROFILE_TOKEN" in reason(make_request(peer=peer), DEVELOPER)


def test_no_peer_as_on_a_unix_socket_is_remote(make_request: MakeRequest) -> None:
    request = make_request(peer=None)

    assert status(request, DEVELOPER) == 403
    assert "the peer is unknown" in reason(request, DEVELOPER)


# -- without a token: the Host header ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LocalHost:8000",
        "127.0.0.1",
        "127.0.0.1:8000",
        "127.1.2.3:80",
        "[::1]",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
    ],
)
def test_a_host_that_names_the_loopback_may(make_request: MakeRequest, host: str) -> None:
    assert status(make_request(("host", host), without=("host",)), DEVELOPER) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:80",
        "localhost.evil.com",
        "evillocalhost",
        "127.0.0.1.evil.com",
        "10.0.0.1",
        "0.0.0.0",
        "[2001:db8::1]:80",
        "",
        " ",
        "localhost@evil.com",
        "evil.com@localhost",
        "localhost,evil.com",
        "localhost:80:80",
        "[::1",
        "::1",
        "localhost/evil.com",
        "localhost#.evil.com",
        "localhost:port",
        "127.1",
        "2130706433",
        "[localhost]",
        "localhost evil.com",
        "localhost\x00",
        "\u00e9",
    ],
)
def test_a_host_that_names_something_else_may_not(make_request: MakeRequest, host: str) -> None:
    request = make_request(("host", host), without=("host",))

    assert status(request, DEVELOPER) == 403
    assert "the Host header does not name this machine's loopback" in reason(request, DEVELOPER)


def test_a_request_without_a_host_may_not(make_request: MakeRequest) -> None:
    assert status(make_request(without=("host",)), DEVELOPER) == 403


@pytest.mark.parametrize("second", ["localhost:8000", "evil.com"])
def test_two_hosts_may_not(make_request: MakeRequest, second: str) -> None:
    assert status(make_request(("host", second)), DEVELOPER) == 403


# -- without a token: other sites in the developer's browser ----------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        (("sec-fetch-site", "none"),),
        (("sec-fetch-site", "same-origin"),),
        (("sec-fetch-site", "Same-Origin"),),
        (("origin", "http://localhost:8000"),),
        (("origin", "https://localhost:8000"),),
        (("origin", "http://localhost:8000"), ("sec-fetch-site", "same-origin")),
    ],
)
def test_a_page_of_this_server_may(make_request: MakeRequest, headers: tuple[tuple[str, str], ...]) -> None:
    assert status(make_request(*headers), DEVELOPER) is None


@pytest.mark.parametrize(
    "headers",
    [
        (("sec-fetch-site", "cross-site"),),
        (("sec-fetch-site", "same-site"),),
        (("sec-fetch-site", ""),),
        (("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")),
        (("origin", "https://evil.com"),),
        (("origin", "http://localhost:3000"),),
        (("origin", "http://localhost"),),
        (("origin", "http://127.0.0.1:8000"),),
        (("origin", "http://localhost:8000.evil.com"),),
        (("origin", "null"),),
        (("origin", ""),),
        (("origin", "localhost:8000"),),
        (("origin", "http://["),),
        (("origin", "http://[::1"),),
        (("origin", "file://"),),
        (("origin", "http://localhost:8000"), ("origin", "https://evil.com")),
        (("origin", "http://localhost:8000"), ("sec-fetch-site", "cross-site")),
        (("origin", "https://evil.com"), ("sec-fetch-site", "same-origin")),
    ],
)
def test_a_page_of_another_site_may_not(make_request: MakeRequest, headers: tuple[tuple[str, str], ...]) -> None:
    assert status(make_request(*headers), DEVELOPER) == 403
    assert "a page of another site" in reason(make_request(*headers), DEVELOPER)


# -- without a token: proxies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "forwarded",
        "x-real-ip",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-server",
        "x-forwarded-prefix",
        "x-forwarded-anything",
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", ""])
def test_behind_any_proxy_one_may_not(make_request: MakeRequest, name: str, value: str) -> None:
    request = make_request((name, value))

    assert status(request, DEVELOPER) == 403
    assert f"came through a proxy ({name})" in reason(request, DEVELOPER)


@pytest.mark.parametrize("version", ["1.0", "0.9"])
def test_the_http_version_that_proxies_speak_may_not(make_request: MakeRequest, version: str) -> None:
    request = make_request(http_version=version)

    assert status(request, DEVELOPER) == 403
    assert f"HTTP/{version}" in reason(request, DEVELOPER)


@pytest.mark.parametrize("version", ["1.1", "2", "3"])
def test_the_http_versions_that_people_speak_may(make_request: MakeRequest, version: str) -> None:
    assert status(make_request(http_version=version), DEVELOPER) is None


# -- all together -----------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["host", "origin", "sec-fetch-site", "x-forwarded-for", "authorization", "accept"]),
            st.text(st.characters(max_codepoint=255), max_size=20),
        ),
        max_size=4,
    ),
    st.one_of(st.none(), st.text(max_size=20)),
)
def test_no_request_breaks_the_check(
    make_request: MakeRequest, headers: list[tuple[str, str]], peer: str | None
) -> None:
    request = make_request(headers=headers, peer=peer)

    assert status(request, DEVELOPER) in (None, 403)
    assert status(request, Settings()) == 403
    assert status(request, SECRET) == 401


def test_every_refusal_is_plain_text_that_browsers_do_not_sniff(make_request: MakeRequest) -> None:
    for answer in (refusal(make_request(), SECRET), refusal(make_request(), Settings())):
        assert answer is not None
        headers = dict(answer.all_headers())
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Content-Length"] == str(len(answer.body))
