"""The own tests of packages that wait and lock a lot, from their source distributions: see `scripts/package-tests`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

from torture.compare import ENGINES, Suite, compare


class Package(NamedTuple):
    name: str
    version: str
    requirements: tuple[str, ...]
    """Of its tests."""
    options: tuple[str, ...] = ()
    """Of pytest."""


PACKAGES = (
    Package(
        "starlette",
        "0.50.0",
        (
            "anyio==4.11.0",
            "httpx",
            "itsdangerous",
            "jinja2",
            "python-multipart",
            "pyyaml",
            "pytest<9",
            "trio",
            "typing_extensions",
        ),
    ),
    Package(
        "anyio",
        "4.11.0",
        (
            "exceptiongroup",
            "hypothesis",
            "psutil",
            "pytest<9",
            "pytest-mock",
            "trustme",
            "uvloop",
            "trio",
            "blockbuster",
            "truststore",
        ),
        ("-m", "not network"),
    ),
    Package(
        "httpx",
        "0.28.1",
        (
            "chardet==5.2.0",
            "trio",
            "trustme",
            "uvicorn",
            "pytest<9",
            "brotli",
            "zstandard",
            "h2",
            "socksio",
            "click",
            "pygments",
            "rich",
            "anyio==4.11.0",
            "cryptography",
        ),
        ("-m", "not network"),
    ),
)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/package-tests")
    parser.add_argument("--engine", choices=ENGINES, default="native")
    parser.add_argument("--again", type=int, default=2, help="how often what failed with it only is tried again")
    parser.add_argument("--work", type=Path, default=Path(".packages"), help="where they are unpacked and installed")
    parser.add_argument("packages", nargs="*", default=[package.name for package in PACKAGES])
    arguments = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {arguments.engine}", flush=True)
    chosen = [package for package in PACKAGES if package.name in arguments.packages]
    bad = [
        package.name
        for package in chosen
        if not compare(_suite(package, arguments.work.resolve()), arguments.engine, arguments.again)
    ]
    print("all pass with the profiler that pass without" if not bad else f"FAILED: {', '.join(bad)}")
    return 1 if bad or len(chosen) < len(arguments.packages) else 0


def _suite(package: Package, work: Path) -> Suite:
    source = _unpacked(package, work)
    python = _environment(package, source, work)

    def command(results: Path) -> list[str]:
        # anyio's test_raise_baseexception_from_task asks a loop that may just have run for the last time: it can hang.
        options = ["-q", "--timeout", "60", "-p", "no:cacheprovider", "-p", "no:randomly", "--junit-xml", str(results)]
        return [str(python), "-m", "pytest", *options, *package.options, "tests"]

    return Suite(f"{package.name} {package.version}", command, source)


def _unpacked(package: Package, work: Path) -> Path:
    directory = work / f"{package.name}-{package.version}"
    if not directory.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        wanted = f"{package.name}=={package.version}"
        _run(
            sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(work), wanted
        )
        with tarfile.open(next(work.glob(f"{package.name}-{package.version}.tar.gz"))) as archive:
            archive.extractall(work, filter="data")
    return directory


def _environment(package: Package, source: Path, work: Path) -> Path:
    """A virtual environment with what the tests and the profiler need; returns its Python."""
    directory = work / f"{package.name}-{sys.version_info.major}.{sys.version_info.minor}"
    python = directory / "bin" / "python"
    if not (directory / "ready").is_file():
        _run(sys.executable, "-m", "venv", str(directory))
        _run(
            str(python), "-m", "pip", "install", "-q", str(source), *package.requirements, "starlette", "pytest-timeout"
        )
        (directory / "ready").touch()
    return python


def _run(*command: str) -> None:
    # Without this project on the path: pip would see what that needs.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main())
