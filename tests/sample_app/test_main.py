"""The command line of the sample service."""

from __future__ import annotations

import logging.config
import os
from typing import Any

import pytest
import uvicorn

from sample_app.__main__ import main

FROM_FLAGS = ("PROFILE_ENABLED", "PROFILE_ENVIRONMENT")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What uvicorn would have served; the environment is as before when the test ends."""
    for name in FROM_FLAGS:
        monkeypatch.setenv(name, "")
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: calls.append({"app": app, **options}))
    return calls


def test_profiling_is_off_unless_it_is_asked_for(served: list[dict[str, Any]]) -> None:
    assert main([]) == 0

    assert [os.environ[name] for name in FROM_FLAGS] == ["", ""]
    (options,) = served
    assert (options["host"], options["port"], options["workers"]) == ("127.0.0.1", 8000, 1)


def test_flags_reach_every_worker_through_the_environment(served: list[dict[str, Any]]) -> None:
    assert main(["--enable-profiling", "--environment=dev", "--workers=2", "--port=8123", "--loop=asyncio"]) == 0

    assert [os.environ[name] for name in FROM_FLAGS] == ["true", "dev"]
    (options,) = served
    assert (options["app"], options["factory"]) == ("sample_app.app:create_app", True)
    assert (options["workers"], options["port"], options["loop"]) == (2, 8123, "asyncio")


def test_settings_that_cannot_be_used_end_it_before_it_serves(
    served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROFILE_INTERVAL", "5")

    with pytest.raises(SystemExit) as ended:
        main(["--enable-profiling"])

    assert ended.value.code == 2
    assert "PROFILE_INTERVAL" in capsys.readouterr().err
    assert served == []


def test_the_log_level_is_everybodys(served: list[dict[str, Any]]) -> None:
    main(["--log-level=warning", "--no-access-log"])

    (options,) = served
    assert options["log_config"]["root"] == {"handlers": ["default"], "level": "WARNING"}
    assert options["access_log"] is False
    logging.config.dictConfigClass(options["log_config"])  # Is understood.
