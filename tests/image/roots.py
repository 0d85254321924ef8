"""Folders that are the root of a small Debian: made once, copied for each stage, and entered with chroot."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

# What the interpreter of the base image needs, besides Debian's smallest system.
_LIBRARIES = (
    "ca-certificates libssl3 libffi8 libsqlite3-0 zlib1g libbz2-1.0 liblzma5 libncursesw6 libreadline8 libuuid1"
)
_OF_THIS_MACHINE = ("/etc/pip.conf", "/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")


CHROOT = shutil.which("chroot") or "/usr/sbin/chroot"
"""By its whole path: it is looked for in the image's PATH otherwise."""


def make_base(root: Path, suite: str, python: Path) -> None:
    """A Debian with that Python below /usr/local, as the official images have it."""
    mirror = _mirror()
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={_LIBRARIES.replace(' ', ',')}", suite, root, mirror],
        check=True,
    )
    prefix = python.resolve().parent.parent
    shutil.copytree(prefix, root / "usr/local", symlinks=True, dirs_exist_ok=True)
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).unlink(missing_ok=True)
        (root / "usr/local/bin" / name).symlink_to(python.resolve().name)
    subprocess.run([CHROOT, root, "ldconfig"], check=True)
    for file in map(Path, _OF_THIS_MACHINE):
        if file.is_file():
            target = root / file.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    for file in Path("/etc/apt").rglob("*"):
        # How packages are fetched on this machine; which ones is the suite's matter.
        if file.is_file() and file.parent.name in ("apt.conf.d", "trusted.gpg.d", "auth.conf.d"):
            shutil.copyfile(file, root / "etc/apt" / file.parent.name / file.name)


def copy_root(source: Path, target: Path) -> None:
    """The same once more."""
    subprocess.run(["cp", "-a", source, target], check=True)


def run_in(root: Path, command: list[str], folder: str, environ: Mapping[str, str], user: str = "0:0") -> None:
    """Runs a command in there. Raises CalledProcessError."""
    of_here = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")}
    inside = ["env", "-C", folder, *command]
    subprocess.run([CHROOT, f"--userspec={user}", root, *inside], env={**of_here, **environ}, check=True)


def _mirror() -> str:
    """Where this machine gets its packages from."""
    for file in (*Path("/etc/apt/sources.list.d").glob("*.sources"), Path("/etc/apt/sources.list")):
        for line in file.read_text().splitlines() if file.is_file() else ():
            mirrors = [
                word for word in line.split() if word.startswith("http") and word.rstrip("/").endswith("/debian")
            ]
            if mirrors and not line.startswith("#"):
                return mirrors[0]
    raise SystemExit("no mirror of Debian in /etc/apt")
