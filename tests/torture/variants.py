"""The ways a run may look for mistakes in memory: which build of the extension, and which environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PACKAGE = "profiling_middleware"
MEANT = "TORTURE_PACKAGE"
"""Says which package is meant: a run of another one would say nothing."""
_C = ("-std=c11", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread", "-g", "-fno-omit-frame-pointer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """`flags` build an extension of its own, `preload` is the library without which that cannot be loaded."""

    environment: Mapping[str, str]
    flags: tuple[str, ...] = ()
    preload: str = ""
    slowness: float = 1.0
    growth: float = 1.0
    """How much more memory it may take: what was freed is kept for a while to be noticed when it is used."""


VARIANTS = {
    "plain": Variant(environment={}),
    "malloc-debug": Variant(environment={"PYTHONMALLOC": "debug"}, slowness=1.5),
    "dev": Variant(environment={"PYTHONDEVMODE": "1"}, slowness=2),
    "asan": Variant(
        # Leaks: what a process has at its end is the interpreter's. Python's own allocator would hide what is freed.
        environment={
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:handle_abort=0:quarantine_size_mb=16",
            "PYTHONMALLOC": "malloc",
        },
        flags=("-fsanitize=address", "-O1"),
        preload="libasan.so",
        slowness=4,
        growth=20,
    ),
    "ubsan": Variant(
        environment={"UBSAN_OPTIONS": "print_stacktrace=1"},
        flags=("-fsanitize=undefined", "-fno-sanitize-recover=all", "-O1"),
        slowness=1.5,
    ),
}


def copy_package(into: Path) -> Path:
    """The package's sources; returns its folder."""
    target = into / _PACKAGE
    shutil.copytree(_ROOT / _PACKAGE, target, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return target


def build(package: Path, flags: Sequence[str]) -> None:
    """Compiles the extension of a copied package. Raises CalledProcessError."""
    sampling = package / "sampling"
    sources = [sampling / "_native.c", *sorted((sampling / "csrc").glob("*.c"))]
    library = sampling / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    compiler = os.environ.get("CC", "gcc")
    subprocess.run([compiler, *_C, *flags, f"-I{sysconfig.get_path('include')}", *sources, "-o", library], check=True)


def environment(variant: Variant, directory: Path | None) -> dict[str, str]:
    """What a run's process gets; `directory` holds the package that was built for it."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PROFILE_", "PYTHON", "OTEL_"))
    }
    path = [*([str(directory)] if directory is not None else []), str(_ROOT), str(_ROOT / "tests")]
    result = {**inherited, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", **variant.environment}
    result[MEANT] = str((directory or _ROOT) / _PACKAGE)
    if variant.preload:
        said = subprocess.run(
            ["gcc", f"-print-file-name={variant.preload}"], capture_output=True, text=True, check=True
        )
        result["LD_PRELOAD"] = said.stdout.strip()
    return result
