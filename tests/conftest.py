"""What all kinds of tests ask for."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

# With --import-mode=importlib pytest adds no folder of tests to the path. Last, because other folders here have names
# that are packages' as well.
sys.path.append(str(Path(__file__).parent))

from trace_kit.perfetto import MissingToolError
from trace_kit.trace_processor import TraceProcessor

from profiling_middleware.sampling import why_not_native


@pytest.fixture(autouse=True)
def _own_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them the spool: what one test leaves is not for the next."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(scope="session")
def need_native() -> Callable[[], None]:
    """Skips where there is no native engine; with REQUIRE_ALL_TOOLS=1 it fails, unless that is left out on purpose."""

    def need() -> None:
        reason = why_not_native()
        if reason is None:
            return
        left_out = os.environ.get("PROFILING_WITHOUT_EXTENSION", "") not in ("", "0")
        if os.environ.get("REQUIRE_ALL_TOOLS") == "1" and not left_out:
            pytest.fail(f"no native engine here: {reason} (REQUIRE_ALL_TOOLS=1)")
        pytest.skip(f"no native engine here: {reason}")

    return need


@pytest.fixture(scope="session")
def trace_processor() -> TraceProcessor:
    """Perfetto's own reader of traces; a test without it is skipped, with REQUIRE_ALL_TOOLS=1 it fails."""
    try:
        return TraceProcessor()
    except MissingToolError as missing:
        if os.environ.get("REQUIRE_ALL_TOOLS") == "1":
            pytest.fail(f"{missing} (REQUIRE_ALL_TOOLS=1)")
        pytest.skip(str(missing))
