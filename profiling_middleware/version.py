"""Which version this is."""

from __future__ import annotations

from importlib import metadata


def _installed_version() -> str:
    try:
        return metadata.version("profiling-middleware")
    except metadata.PackageNotFoundError:  # packed into one file, or copied to where it is
        return "unknown"


# Read when this is loaded and not when a capture ends: it imports, see imports.py.
VERSION = _installed_version()
