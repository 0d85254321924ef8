"""The command line that is shown: secrets are hidden, the rest stays."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling_middleware.middleware.cmdline import shown_command_line

H = "<redacted>"
AWS_ID, AWS_KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def shown(*arguments: str, token: str | None = None) -> list[str]:
    return shown_command_line(arguments, token)


@pytest.mark.parametrize(
    "arguments",
    [
        ["/usr/bin/python3", "-m", "uvicorn", "shop.app:app", "--host", "0.0.0.0", "--port", "8000"],
        ["gunicorn", "-w", "4", "-b", "127.0.0.1:8000", "-k", "gthread", "--threads", "8", "app:app"],
        ["python", "-u", "-X", "dev", "-W", "error", "manage.py", "runserver", "-p", "8000", "-p8000"],
        ["serve", "--ssl-keyfile", "/etc/tls/server.pem", "--log-level=debug", "--workers=2"],
        ["worker", "--bucket", "s3://acme-debugging/profiles", "--url=https://shop.example/health?verbose=1"],
        ["git", "show", "da39a3ee5e6b4b0d3255bfef95601890afd80709"],
        ["mail", "me@shop.example", "postgres://db.internal:5432/shop", "compass=north", "monkey: a"],
        ["", "é", "日本", "\udcff"],
    ],
)
def test_what_is_no_secret_stays(arguments: list[str]) -> None:
    assert shown(*arguments) == arguments


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("--token=abc", f"--token={H}"),
        ("--db.passwd=a=b c", f"--db.passwd={H}"),
        ("--ApiKey=x", f"--ApiKey={H}"),
        ("-Dauth.url=x", f"-Dauth.url={H}"),
        ("DB_PASSWORD=hunter2", f"DB_PASSWORD={H}"),
        ("MYSQL_PWD=hunter2", f"MYSQL_PWD={H}"),
        ("DB_PASS=hunter2", f"DB_PASS={H}"),
        ("SENTRY_DSN=https://0123@sentry.example/1", f"SENTRY_DSN={H}"),
        ("AWS_SECRET_ACCESS_KEY=x", f"AWS_SECRET_ACCESS_KEY={H}"),
        ("signing-key=x", f"signing-key={H}"),
        ("host=db password=hunter2 user=x", f"host=db password={H}"),
        ('{"credentials": {"user": "x"}}', f'{{"credentials": {H}'),
        ("{'api_key' : 'x'}", f"{{'api_key' : {H}"),
        ("X-Api-Key: x", f"X-Api-Key: {H}"),
        ("Authorization: Bearer x", f"Authorization: {H}"),
        ("header=bearer abc.def", f"header=bearer {H}"),
        ("import os; SECRET = 'x'; print(1)", f"import os; SECRET = {H}"),
        ("https://shop.example/?session=1&access_token=x&y=2", f"https://shop.example/?session=1&access_token={H}"),
        ("postgres://me:hunter2@db/shop", f"postgres://{H}@db/shop"),
        ("--url=redis://:p@ss/w?rd@db:6379/0", f"--url=redis://{H}@db:6379/0"),
        ("https://ghp-like@github.com/x", f"https://{H}@github.com/x"),
        ("a://u:p@h,b://v:q@i", f"a://{H}@i"),
        (AWS_ID, H),
        (f"id:{AWS_ID}", f"id:{H}"),
        (AWS_KEY, H),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_-", H),
        ("ghp_0123456789abcdef", H),
        ("-----BEGIN RSA KEY-----\nMIIE\n", H),
        ("-phunter2", f"-p{H}"),
        ("-p=hunter2", f"-p{H}"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(given_: str, expected: str) -> None:
    assert shown("app", given_, "after") == ["app", expected, "after"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--password", "x", "y"], ["--password", H, "y"]),
        (["--api-key", "-x", "y"], ["--api-key", H, "y"]),
        (["-p", "secret", "y"], ["-p", H, "y"]),
        (["-password", "x", "y"], [f"-p{H}", H, "y"]),
        (["--auth", "--port", "80"], ["--auth", "--port", "80"]),
        (["--token", "--password", "x"], ["--token", "--password", H]),
        (["--token", "--password=x", "y"], ["--token", f"--password={H}", "y"]),
        (["--password", "-p", "x"], ["--password", H, "x"]),
        (["--password"], ["--password"]),
    ],
)
def test_the_argument_after_a_secrets_name_is_hidden(arguments: list[str], expected: list[str]) -> None:
    assert shown(*arguments) == expected


def test_an_argument_with_the_token_in_it_is_hidden_as_a_whole() -> None:
    assert shown("a", "xtell-nobodyx", "--x=tell-nobody", "b", token="tell-nobody") == ["a", H, H, "b"]


SECRETS = st.text(string.ascii_letters + string.digits + "!$%^*+/=,;:@#?&'\"-_ ", min_size=1, max_size=40).map(
    "§".__add__
)
NAMES = st.sampled_from(
    ["token", "secret", "password", "passwd", "api-key", "apikey", "api_key", "credential", "auth", "private", "dsn"]
).flatmap(lambda name: st.sampled_from([name, name.upper(), name.title(), f"my-{name}", f"DB_{name}", f"{name}s2"]))
FORMS = ["--{n}={s}", "-{n}={s}", "{n}={s}", "x={{'{n}': '{s}'}}", "{n}: {s}", "{n} = {s}", "?a=1&{n}={s}"]


@given(NAMES, SECRETS, st.sampled_from(FORMS), st.lists(st.text(max_size=8), max_size=3))
def test_no_value_of_a_secrets_name_is_shown(name: str, secret: str, form: str, others: list[str]) -> None:
    argument = form.format(n=name, s=secret)
    assert not any("§" in one for one in shown(*others, argument, "after")[len(others) :])


@given(NAMES, SECRETS)
def test_no_value_after_a_secrets_name_is_shown(name: str, secret: str) -> None:
    assert shown(f"--{name}", secret, "after") == [f"--{name}", H, "after"]


@given(SECRETS.filter(lambda secret: not re.search(r"\s", secret)), st.sampled_from(["", "--url=", "x "]))
def test_no_password_of_a_url_is_shown(secret: str, before: str) -> None:
    (one,) = shown(f"{before}amqp://user:{secret}@host/path")
    assert "§" not in one
    assert "user" not in one


@given(st.lists(st.text(max_size=30), max_size=6), st.text(string.printable, min_size=8, max_size=20).map(str.strip))
def test_the_token_is_never_shown_whatever_stands_around_it(arguments: list[str], token: str) -> None:
    given_ = [*arguments, f"a{token}b", token, *arguments]
    result = shown_command_line(given_, token)

    assert len(result) == len(given_)
    assert not token or not any(token in one for one in result)


def test_even_a_very_long_argument_takes_no_time(deadline: float) -> None:
    """Arguments can have 128 KiB, and the routes are answered on the event loop."""
    for piece in ("token", "://", "key ", "a.", "AKIA", "Aa1/", "bearer ", "eyJa.", "@", '"'):
        shown("--x", piece * (131_072 // len(piece)))
