"""Which version this is, also where nothing was installed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable


def test_without_the_packages_metadata_it_is_unknown(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Packed into one file, or copied to where it is."""
    ran = run_python("""
from importlib import metadata

def missing(name):
    raise metadata.PackageNotFoundError(name)

metadata.version = missing
from profiling_middleware.captures.comments import VERSION
print(VERSION)
""")

    assert (ran.stdout, ran.stderr) == ("unknown\n", "")
