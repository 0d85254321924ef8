"""`python -m sample_app`: serve the sample service with uvicorn."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from profiling_middleware import Settings
from profiling_middleware.config import SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped; settings that cannot be used end it with code 2 before anything is served."""
    parser = _parser()
    options = parser.parse_args(arguments)
    # Flags travel in the environment because workers are processes of their own, which get nothing else.
    if options.enable_profiling:
        os.environ["PROFILE_ENABLED"] = "true"
    if options.environment is not None:
        os.environ["PROFILE_ENVIRONMENT"] = options.environment
    try:
        Settings.from_env()
    except SettingsError as error:
        parser.error(str(error))
    uvicorn.run(
        "sample_app.app:create_app",
        factory=True,
        host=options.host,
        port=options.port,
        workers=options.workers,
        loop=options.loop,
        log_level=options.log_level,
        log_config=_logging(options.log_level),
        access_log=options.access_log,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sample_app", description="A web service worth profiling.", allow_abbrev=False
    )
    parser.add_argument(
        "--enable-profiling",
        action="store_true",
        help="profile continuously (PROFILE_ENABLED); off by default",
    )
    parser.add_argument("--environment", help="dev, staging, prod, … (PROFILE_ENVIRONMENT)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1, help="processes to serve with")
    parser.add_argument("--loop", choices=("auto", "asyncio", "uvloop"), default="auto")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.add_argument("--access-log", action=argparse.BooleanOptionalAction, default=True)
    return parser


def _logging(level: str) -> dict[str, Any]:
    """uvicorn's logging, and the same for everyone else: the profiler says in its log where it uploads to."""
    return {**LOGGING_CONFIG, "root": {"handlers": ["default"], "level": level.upper()}}


if __name__ == "__main__":
    sys.exit(main())
