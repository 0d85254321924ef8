"""Settings and the environment they are read from."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import pickle
from pathlib import Path

import pytest

from profiling_middleware.config import Settings, SettingsError

SECRET = "correct-horse-battery-staple"

DEFAULTS = {
    "enabled": False,
    "bucket": None,
    "bucket_owner": None,
    "environment": None,
    "service_name": "python-service",
    "interval": 300.0,
    "duration": 120.0,
    "types": ("cpu", "block", "mutex", "trace"),
    "store": "s3",
    "token": None,
    "max_seconds": 300,
    "engine": "auto",
    "sample_rate": 100,
    "max_overhead": 0.01,
    "spool_dir": None,
    "spool_max_bytes": 64 * 1024 * 1024,
    "slow_request": None,
}

GOOD = [
    ("PROFILE_ENABLED", "1", "enabled", True),
    ("PROFILE_ENABLED", "true", "enabled", True),
    ("PROFILE_ENABLED", "Yes", "enabled", True),
    ("PROFILE_ENABLED", "ON", "enabled", True),
    ("PROFILE_ENABLED", "0", "enabled", False),
    ("PROFILE_ENABLED", "False", "enabled", False),
    ("PROFILE_ENABLED", "no", "enabled", False),
    ("PROFILE_ENABLED", "off", "enabled", False),
    ("PROFILE_S3_BUCKET", "my.bucket-1", "bucket", "my.bucket-1"),
    ("PROFILE_S3_BUCKET", "a" * 63, "bucket", "a" * 63),
    ("PROFILE_S3_BUCKET", "abc", "bucket", "abc"),
    ("PROFILE_S3_BUCKET_OWNER", "012345678901", "bucket_owner", "012345678901"),
    ("PROFILE_ENVIRONMENT", "prod", "environment", "prod"),
    ("PROFILE_ENVIRONMENT", "eu-1", "environment", "eu-1"),
    ("PROFILE_SERVICE_NAME", "watcher", "service_name", "watcher"),
    ("PROFILE_SERVICE_NAME", "Shop_API.v2-eu", "service_name", "Shop_API.v2-eu"),
    ("PROFILE_SERVICE_NAME", "a" * 128, "service_name", "a" * 128),
    ("PROFILE_INTERVAL", "1h30m", "interval", 5400.0),
    ("PROFILE_INTERVAL", "2m", "interval", 120.0),
    ("PROFILE_DURATION", "90s", "duration", 90.0),
    ("PROFILE_DURATION", "5m", "duration", 300.0),
    ("PROFILE_DURATION", "1s", "duration", 1.0),
    ("PROFILE_TYPES", "cpu", "types", ("cpu",)),
    ("PROFILE_TYPES", " Wall , cpu,", "types", ("wall", "cpu")),
    ("PROFILE_TYPES", "cpu,wall,block,mutex,trace", "types", ("cpu", "wall", "block", "mutex", "trace")),
    ("PROFILE_STORE", "s3", "store", "s3"),
    ("PROFILE_STORE", "file:///var/profiles", "store", "file:///var/profiles"),
    ("PROFILE_TOKEN", SECRET, "token", SECRET),
    ("PROFILE_TOKEN", "8letters", "token", "8letters"),
    ("PROFILE_MAX_SECONDS", "1", "max_seconds", 1),
    ("PROFILE_MAX_SECONDS", "86400", "max_seconds", 86_400),
    ("PROFILE_ENGINE", "native", "engine", "native"),
    ("PROFILE_ENGINE", "polling", "engine", "polling"),
    ("PROFILE_ENGINE", "Python", "engine", "python"),
    ("PROFILE_SAMPLE_RATE", "1", "sample_rate", 1),
    ("PROFILE_SAMPLE_RATE", "1000", "sample_rate", 1000),
    ("PROFILE_MAX_OVERHEAD", "2.5%", "max_overhead", 0.025),
    ("PROFILE_MAX_OVERHEAD", "0.02", "max_overhead", 0.02),
    ("PROFILE_MAX_OVERHEAD", "100%", "max_overhead", 1.0),
    ("PROFILE_SPOOL_DIR", "/var/spool/profiles", "spool_dir", Path("/var/spool/profiles")),
    ("PROFILE_SPOOL_MAX_BYTES", "1MiB", "spool_max_bytes", 2**20),
    ("PROFILE_SPOOL_MAX_BYTES", "500MB", "spool_max_bytes", 500_000_000),
    ("PROFILE_SLOW_REQUEST", "1.5s", "slow_request", 1.5),
]

BAD = [
    ("PROFILE_ENABLED", "maybe", "use 1, true, yes, on or 0, false, no, off"),
    ("PROFILE_ENABLED", "2", "use 1, true, yes, on or 0, false, no, off"),
    ("PROFILE_S3_BUCKET", "My-Bucket", "use 3 to 63 of a-z, 0-9, '.', '-'"),
    ("PROFILE_S3_BUCKET", "ab", "use 3 to 63 of a-z, 0-9, '.', '-'"),
    ("PROFILE_S3_BUCKET", "a" * 64, "use 3 to 63 of a-z, 0-9, '.', '-'"),
    ("PROFILE_S3_BUCKET", "-bucket", "use 3 to 63 of a-z, 0-9, '.', '-'"),
    ("PROFILE_S3_BUCKET", "bucket-", "use 3 to 63 of a-z, 0-9, '.', '-'"),
    ("PROFILE_S3_BUCKET", "my..bucket", "use 3 to 63 of a-z, 0-9, '.', '-'"),
    ("PROFILE_S3_BUCKET", "192.168.0.1", "use 3 to 63 of a-z, 0-9, '.', '-'"),
    ("PROFILE_S3_BUCKET", "s3://bucket", "use 3 to 63 of a-z, 0-9, '.', '-'"),
    ("PROFILE_S3_BUCKET", "bucket/prefix", "use 3 to 63 of a-z, 0-9, '.', '-'"),
    ("PROFILE_S3_BUCKET_OWNER", "12345", "write its 12 digits"),
    ("PROFILE_S3_BUCKET_OWNER", "1234-5678-9012", "write its 12 digits"),
    ("PROFILE_S3_BUCKET_OWNER", "0123456789012", "write its 12 digits"),
    ("PROFILE_S3_BUCKET_OWNER", "\uff10" * 12, "write its 12 digits"),
    ("PROFILE_ENVIRONMENT", "Prod", "use lower-case letters, digits and '-', such as prod"),
    ("PROFILE_ENVIRONMENT", "pre_prod", "use lower-case letters, digits and '-', such as prod"),
    ("PROFILE_ENVIRONMENT", "-prod", "use lower-case letters, digits and '-', such as prod"),
    ("PROFILE_ENVIRONMENT", "a" * 33, "use lower-case letters, digits and '-', such as prod"),
    ("PROFILE_SERVICE_NAME", "shop/api", "use letters, digits, '.', '_' and '-', at most 128"),
    ("PROFILE_SERVICE_NAME", "shop api", "use letters, digits, '.', '_' and '-', at most 128"),
    ("PROFILE_SERVICE_NAME", "..", "use letters, digits, '.', '_' and '-', at most 128"),
    ("PROFILE_SERVICE_NAME", "caf\u00e9", "use letters, digits, '.', '_' and '-', at most 128"),
    ("PROFILE_SERVICE_NAME", "a" * 129, "use letters, digits, '.', '_' and '-', at most 128"),
    ("PROFILE_INTERVAL", "5", "write a number with a unit, such as 90s, 5m, 1h30m or 1.5h"),
    ("PROFILE_INTERVAL", "five minutes", "write a number with a unit, such as 90s, 5m, 1h30m or 1.5h"),
    ("PROFILE_INTERVAL", "-5m", "write a number with a unit, such as 90s, 5m, 1h30m or 1.5h"),
    ("PROFILE_DURATION", "2 minutes", "write a number with a unit, such as 90s, 5m, 1h30m or 1.5h"),
    ("PROFILE_DURATION", "120", "write a number with a unit, such as 90s, 5m, 1h30m or 1.5h"),
    ("PROFILE_DURATION", "0s", "use 1s or more"),
    ("PROFILE_DURATION", "999ms", "use 1s or more"),
    ("PROFILE_TYPES", "cpu,heap", "choose from cpu, wall, block, mutex, trace"),
    ("PROFILE_TYPES", ",", "name some of cpu, wall, block, mutex, trace"),
    ("PROFILE_TYPES", "cpu,cpu", "name each once"),
    ("PROFILE_TYPES", "cpu;trace", "choose from cpu, wall, block, mutex, trace"),
    ("PROFILE_STORE", "/var/profiles", "use s3, or file:///directory with an absolute path"),
    ("PROFILE_STORE", "file://host/dir", "use s3, or file:///directory with an absolute path"),
    ("PROFILE_STORE", "file:relative", "use s3, or file:///directory with an absolute path"),
    ("PROFILE_STORE", "file:///", "use s3, or file:///directory with an absolute path"),
    ("PROFILE_STORE", "file:///dir?x=1", "use s3, or file:///directory with an absolute path"),
    ("PROFILE_STORE", "gs://bucket", "use s3, or file:///directory with an absolute path"),
    ("PROFILE_STORE", "file://[host/dir", "use s3, or file:///directory with an absolute path"),
    ("PROFILE_STORE", "file:///dir%00ectory", "use s3, or file:///directory with an absolute path"),
    ("PROFILE_TOKEN", "short", "use 8 to 1024 visible ASCII characters without spaces"),
    ("PROFILE_TOKEN", "two words here", "use 8 to 1024 visible ASCII characters without spaces"),
    ("PROFILE_TOKEN", "p\u00e4ssw\u00f6rter", "use 8 to 1024 visible ASCII characters without spaces"),
    ("PROFILE_TOKEN", "x" * 1025, "use 8 to 1024 visible ASCII characters without spaces"),
    ("PROFILE_MAX_SECONDS", "0", "use 1 to 86400 seconds"),
    ("PROFILE_MAX_SECONDS", "86401", "use 1 to 86400 seconds"),
    ("PROFILE_MAX_SECONDS", "5m", "write digits only"),
    ("PROFILE_MAX_SECONDS", "-1", "write digits only"),
    ("PROFILE_MAX_SECONDS", "1_0", "write digits only"),
    ("PROFILE_ENGINE", "rust", "choose from auto, native, polling, python"),
    ("PROFILE_SAMPLE_RATE", "0", "use 1 to 1000 samples a second"),
    ("PROFILE_SAMPLE_RATE", "1001", "use 1 to 1000 samples a second"),
    ("PROFILE_SAMPLE_RATE", "100Hz", "write digits only"),
    ("PROFILE_SAMPLE_RATE", "99.5", "write digits only"),
    ("PROFILE_SAMPLE_RATE", "\u0661\u0660\u0660", "write digits only"),
    ("PROFILE_MAX_OVERHEAD", "0%", "use more than 0% and at most 100% of a core"),
    ("PROFILE_MAX_OVERHEAD", "101%", "use more than 0% and at most 100% of a core"),
    ("PROFILE_MAX_OVERHEAD", "5", "use more than 0% and at most 100% of a core"),
    ("PROFILE_MAX_OVERHEAD", "-1%", "write a percentage such as 1% or a fraction such as 0.01"),
    ("PROFILE_MAX_OVERHEAD", "low", "write a percentage such as 1% or a fraction such as 0.01"),
    ("PROFILE_SPOOL_MAX_BYTES", "1023KiB", "use 1MiB or more"),
    ("PROFILE_SPOOL_MAX_BYTES", "64 megabytes", "write bytes or a number with a unit, such as 64MiB, 500KB or 1GiB"),
    ("PROFILE_SPOOL_MAX_BYTES", "-1", "write bytes or a number with a unit, such as 64MiB, 500KB or 1GiB"),
    ("PROFILE_SLOW_REQUEST", "0s", "use more than 0s, or unset it"),
    ("PROFILE_SLOW_REQUEST", "1500", "write a number with a unit, such as 90s, 5m, 1h30m or 1.5h"),
]

# What can be read but not used is shown as it was read.
READ_AS = {
    ("PROFILE_DURATION", "0s"): 0.0,
    ("PROFILE_DURATION", "999ms"): 0.999,
    ("PROFILE_TYPES", "cpu,heap"): ("cpu", "heap"),
    ("PROFILE_TYPES", ","): (),
    ("PROFILE_TYPES", "cpu,cpu"): ("cpu", "cpu"),
    ("PROFILE_TYPES", "cpu;trace"): ("cpu;trace",),
    ("PROFILE_MAX_SECONDS", "0"): 0,
    ("PROFILE_MAX_SECONDS", "86401"): 86_401,
    ("PROFILE_SAMPLE_RATE", "0"): 0,
    ("PROFILE_SAMPLE_RATE", "1001"): 1001,
    ("PROFILE_MAX_OVERHEAD", "0%"): 0.0,
    ("PROFILE_MAX_OVERHEAD", "101%"): 1.01,
    ("PROFILE_MAX_OVERHEAD", "5"): 5.0,
    ("PROFILE_SPOOL_MAX_BYTES", "1023KiB"): 1_047_552,
    ("PROFILE_SLOW_REQUEST", "0s"): 0.0,
}


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_env({})

    assert {name: getattr(settings, name) for name in DEFAULTS} == DEFAULTS


def test_settings_built_in_code_have_the_same_defaults() -> None:
    assert Settings() == Settings.from_env({})


def test_every_setting_but_the_logger_has_a_default_that_is_tested() -> None:
    assert {field.name for field in dataclasses.fields(Settings)} == {*DEFAULTS, "logger"}


@pytest.mark.parametrize(("variable", "text", "name", "value"), GOOD)
def test_a_good_value_is_taken(variable: str, text: str, name: str, value: object) -> None:
    settings = Settings.from_env({variable: text})

    assert getattr(settings, name) == value


@pytest.mark.parametrize(("variable", "text", "name", "value"), GOOD)
def test_one_variable_changes_one_setting(variable: str, text: str, name: str, value: object) -> None:
    settings = Settings.from_env({variable: text})

    assert {other: getattr(settings, other) for other in DEFAULTS} == DEFAULTS | {name: value}


@pytest.mark.parametrize(("variable", "text", "remedy"), BAD)
def test_a_bad_value_is_refused_by_variable_value_and_remedy(variable: str, text: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({variable: text})

    shown = "\u2026" if variable == "PROFILE_TOKEN" else READ_AS.get((variable, text), text)
    assert str(refused.value).startswith(f"{variable} ({refused.value.name}) = {shown!r} ")
    assert remedy in str(refused.value)


def test_every_variable_has_a_bad_value_that_is_tested() -> None:
    without = {"PROFILE_SPOOL_DIR"}  # any path will do

    assert {variable for variable, *_ in BAD} | without == {variable for variable, *_ in GOOD}


@pytest.mark.parametrize("variable", sorted({variable for variable, *_ in GOOD}))
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_counts_as_unset(variable: str, empty: str) -> None:
    assert Settings.from_env({variable: empty}) == Settings()


def test_spaces_around_a_value_do_not_matter() -> None:
    assert Settings.from_env({"PROFILE_INTERVAL": " 10m ", "PROFILE_TOKEN": f" {SECRET} "}) == Settings(
        interval=600.0, token=SECRET
    )


def test_the_environment_of_the_process_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("PROFILE_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PROFILE_ENVIRONMENT", "staging")

    assert Settings.from_env() == Settings(environment="staging")


@pytest.mark.parametrize(
    ("variable", "remedy"),
    [
        ("PROFILE_BUCKET", "PROFILE_S3_BUCKET is one"),
        ("PROFILE_ENABLE", "PROFILE_ENABLED is one"),
        ("PROFILE_interval", "PROFILE_INTERVAL is one"),
        ("PROFILE_GUNNER", "none has a name like it"),
        ("PROFILE_", "none has a name like it"),
    ],
)
def test_a_variable_that_is_no_setting_is_named_in_the_log(
    variable: str, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And its value is not: it may be a token."""
    settings = Settings.from_env({variable: SECRET, "PROFILE_TOKEN": SECRET, "PROFILER": "1", "MY_PROFILE_X": "1"})
    assert settings == Settings(token=SECRET)
    assert caplog.messages == [f"profiling: {variable!r} is no setting and is ignored: {remedy}"]


def test_a_settings_error_is_a_value_error_that_knows_the_setting() -> None:
    with pytest.raises(ValueError, match="PROFILE_S3_BUCKET_OWNER") as refused:
        Settings(bucket_owner="mine")

    assert isinstance(refused.value, SettingsError)
    assert refused.value.name == "bucket_owner"


# -- windows ----------------------------------------------------------------------------------------------------------


def test_a_window_may_be_as_long_as_the_interval() -> None:
    assert Settings(interval=120, duration=120).duration == 120


def test_a_window_longer_than_the_interval_is_refused_with_both_remedies() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"PROFILE_INTERVAL": "1m", "PROFILE_DURATION": "90s"})

    assert "PROFILE_INTERVAL" in str(refused.value)
    assert "use 1m30s or more, or shorten PROFILE_DURATION" in str(refused.value)


@pytest.mark.parametrize("name", ["interval", "duration"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_length_of_time_that_is_no_number_is_refused(name: str, value: float) -> None:
    with pytest.raises(SettingsError):
        Settings(**{name: value})


def test_an_interval_beyond_what_a_thread_can_wait_is_refused() -> None:
    with pytest.raises(SettingsError):
        Settings.from_env({"PROFILE_INTERVAL": "3000000h"})


# -- bucket -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bucket", "environment", "name"),
    [
        (None, None, "stl-debugging"),
        (None, "prod", "stl-debugging-prod"),
        (None, "dev", "stl-debugging-dev"),
        ("stl-debugging", "prod", "stl-debugging-prod"),
        ("stl-debugging-prod", "prod", "stl-debugging-prod"),
        ("stl-debugging-prod", "dev", "stl-debugging-prod-dev"),
        ("profiles-nonprod", "prod", "profiles-nonprod-prod"),
        ("mine", None, "mine"),
    ],
)
def test_the_environment_is_added_to_the_bucket_once(bucket: str | None, environment: str | None, name: str) -> None:
    assert Settings(bucket=bucket, environment=environment).bucket_name == name


def test_a_bucket_that_is_too_long_with_its_environment_is_refused_by_its_whole_name() -> None:
    with pytest.raises(SettingsError, match=f"PROFILE_S3_BUCKET .*'{'b' * 60}-prod'"):
        Settings(bucket="b" * 60, environment="prod")


# -- service name -----------------------------------------------------------------------------------------------------


def test_the_service_name_falls_back_to_that_of_opentelemetry() -> None:
    assert Settings.from_env({"OTEL_SERVICE_NAME": "checkout"}).service_name == "checkout"


def test_the_profilers_own_variable_comes_before_that_of_opentelemetry() -> None:
    both = {"PROFILE_SERVICE_NAME": "watcher", "OTEL_SERVICE_NAME": "checkout"}

    assert Settings.from_env(both).service_name == "watcher"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("shop/checkout api", "shop-checkout-api"),
        (" checkout ", "checkout"),
        ("/shop", "shop"),
        ("a" * 200, "a" * 128),
        ("\u30b7\u30e7\u30c3\u30d7", "python-service"),
        ("...", "python-service"),
        ("  ", "python-service"),
    ],
)
def test_what_a_key_cannot_carry_is_replaced_in_the_name_from_opentelemetry(given: str, used: str) -> None:
    assert Settings.from_env({"OTEL_SERVICE_NAME": given}).service_name == used


# -- store ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("store", "directory"),
    [
        ("s3", None),
        ("file:///var/profiles", Path("/var/profiles")),
        ("file://localhost/var/profiles", Path("/var/profiles")),
        ("file:///with%20space", Path("/with space")),
        ("file:///gr%C3%BCn", Path("/gr\u00fcn")),
    ],
)
def test_a_file_url_names_the_directory(store: str, directory: Path | None) -> None:
    assert Settings(store=store).directory == directory


def test_the_url_of_any_path_leads_back_to_it(tmp_path: Path) -> None:
    path = tmp_path / "a b%20c#d?e"

    assert Settings(store=path.as_uri()).directory == path


@pytest.mark.parametrize(
    ("settings", "uploads"),
    [
        (Settings(), False),
        (Settings(environment="prod"), False),
        (Settings(enabled=True), True),
        (Settings(bucket="mine"), True),
        (Settings(store="file:///var/profiles"), True),
    ],
)
def test_nothing_is_uploaded_unless_enabled_or_a_bucket_or_store_was_named(settings: Settings, uploads: bool) -> None:
    assert settings.uploads is uploads


# -- the secret, and being frozen -------------------------------------------------------------------------------------


def test_the_token_is_not_in_the_text_of_settings() -> None:
    settings = Settings(token=SECRET)

    assert SECRET not in f"{settings} {settings!r}"


@pytest.mark.parametrize("secret", ["s3cr3t!", "s3cr3t with spaces", "s3cr3t\u20ac" * 9, "s3cr3t" * 200])
def test_the_token_is_in_no_error(secret: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"PROFILE_TOKEN": secret})

    error: BaseException | None = refused.value
    while error is not None:
        assert "s3cr3t" not in f"{error} {error!r} {error.args}"
        error = error.__cause__ or error.__context__


def test_another_bad_setting_does_not_show_the_token() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings(token=SECRET, sample_rate=0)

    assert SECRET not in f"{refused.value!r}"


@pytest.mark.parametrize("name", [*DEFAULTS, "logger"])
def test_settings_cannot_be_changed(name: str) -> None:
    settings = Settings()

    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, name, getattr(settings, name))


def test_settings_differ_by_their_values_and_not_by_their_logger() -> None:
    assert Settings() == Settings(logger=logging.getLogger("other"))
    assert Settings(token=SECRET) != Settings()


def test_settings_can_be_handed_to_another_process() -> None:
    settings = Settings(enabled=True, token=SECRET, types=("cpu",))

    assert pickle.loads(pickle.dumps(settings)) == settings
