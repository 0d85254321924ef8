"""Programs that are not Python packages: a test without them is skipped, or fails where they must be there."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def need_program(name: str, remedy: str) -> str:
    """The path of a program; without it the test does not run."""
    return shutil.which(name) or _missing(name, remedy)


def need_file(path: Path, remedy: str) -> None:
    """The same for a program that must lie in one place."""
    if not path.is_file():
        _missing(path.name, remedy)


def need_module(name: str, remedy: str) -> None:
    """The same for a Python package that is not a dependency."""
    if importlib.util.find_spec(name) is None:
        _missing(name, remedy)


def _missing(name: str, remedy: str) -> NoReturn:
    reason = f"{name} is not installed: {remedy}"
    if os.environ.get("REQUIRE_ALL_TOOLS") == "1":
        pytest.fail(f"{reason} (REQUIRE_ALL_TOOLS=1)")
    pytest.skip(reason)
