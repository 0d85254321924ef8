"""The C extensions: the native engine, and what writes the packets of traces; all else stands in pyproject.toml.

Optional: without a compiler, or where they do not compile, the package installs all the same, runs on the portable
engine, which it says when it starts, and writes packets in Python.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

_SAMPLING = Path("profiling_middleware/sampling")


def _has_stable_interface() -> bool:
    return (
        sys.implementation.name == "cpython"
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and os.environ.get("PROFILING_WITHOUT_EXTENSION", "") in ("", "0")
    )


def _is_known() -> bool:
    """Whether the engine is written for this interpreter and machine; csrc/common.h refuses the others, too."""
    return (
        _has_stable_interface()
        and (3, 11) <= sys.version_info[:2] <= (3, 13)
        and sys.platform.startswith("linux")
        and platform.machine() in ("x86_64", "aarch64")
    )


_ENGINE = Extension(
    "profiling_middleware.sampling._native",
    sources=[str(_SAMPLING / "_native.c"), *sorted(map(str, (_SAMPLING / "csrc").glob("*.c")))],
    depends=sorted(map(str, (_SAMPLING / "csrc").glob("*.h"))),
    extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-pthread"],
    extra_link_args=["-pthread"],
    optional=True,
)
_PACKETS = Extension(
    "profiling_middleware.encoders._packets",
    # Of the stable interface, so that it compiles for later Pythons, but a file for each: what headers of one put in
    # place does not hold for another (Py_RETURN_NONE of 3.12 takes no reference, and 3.11 counts them).
    sources=["profiling_middleware/encoders/_packets.c"],
    optional=True,
)

setup(ext_modules=[*([_ENGINE] if _is_known() else []), *([_PACKETS] if _has_stable_interface() else [])])
