"""The sample of a service from the integration tests, whose profiler tries again after tenths of a second."""

from __future__ import annotations

from profiled_asgi import app as app

from profiling_middleware import uploads

uploads._FIRST_RETRY_SECONDS, uploads._LAST_RETRY_SECONDS = 0.1, 1.0  # type: ignore[attr-defined]
