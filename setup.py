"""The native engine's C extension; all else stands in pyproject.toml.

Optional: without a compiler, or where it does not compile, the package installs all the same and runs on the portable
engine, which it says when it starts.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

_SAMPLING = Path("profiling_middleware/sampling")


def _is_known() -> bool:
    """Whether it is written for this interpreter and machine; csrc/common.h refuses the others, too."""
    return (
        sys.implementation.name == "cpython"
        and (3, 11) <= sys.version_info[:2] <= (3, 13)
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and sys.platform.startswith("linux")
        and platform.machine() in ("x86_64", "aarch64")
        and os.environ.get("PROFILING_WITHOUT_EXTENSION", "") in ("", "0")
    )


setup(
    ext_modules=[
        Extension(
            "profiling_middleware.sampling._native",
            sources=[str(_SAMPLING / "_native.c"), *sorted(map(str, (_SAMPLING / "csrc").glob("*.c")))],
            depends=sorted(map(str, (_SAMPLING / "csrc").glob("*.h"))),
            extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-pthread"],
            extra_link_args=["-pthread"],
            optional=True,
        )
    ]
    if _is_known()
    else []
)
