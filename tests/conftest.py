"""What all kinds of tests ask for."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from profiling_middleware.sampling import why_not_native


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
