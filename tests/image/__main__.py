"""Builds the image's root, starts what the image starts, with a read-only root, and asks it for a profile."""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from image.build import Image, build
from image.dockerfile import read_dockerfile
from image.roots import CHROOT, make_base, run_in
from sample_app.ports import free_port
from sample_app.pprof_reader import read_pprof

ROOT = Path(__file__).parents[2]
READY_SECONDS = 30.0


def main() -> int:
    """0 if all steps work, and the service is well, has its spool in the volume, and writes only where it may."""
    parser = argparse.ArgumentParser(prog="scripts/try-image", description="The Dockerfile without a container engine.")
    parser.add_argument("work", type=Path, help="an empty or new folder")
    work = parser.parse_args().work.resolve()
    if missing := [name for name in ("debootstrap", "unshare") if shutil.which(name) is None]:
        raise SystemExit(f"needs {', '.join(missing)}: apt-get install debootstrap")
    work.mkdir(parents=True, exist_ok=True)
    stages = read_dockerfile(ROOT / "Dockerfile")
    match = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-(\w+)", stages[0].base)
    assert match, stages[0].base
    if not (work / "base/usr/local/bin/python").exists():
        python = subprocess.run([ROOT / "scripts/find-python", match[1]], check=True, capture_output=True, text=True)
        make_base(work / "base", match[2], Path(python.stdout.strip()))
    image = build(stages, work / "base", _context(work / "context"), work)
    print(f"what is installed has sha256 {_digest(image.root, 'app', 'srv')}: the same sources give the same again")
    return _try(image, work)


def _context(folder: Path) -> Path:
    """What git knows: .dockerignore leaves out the same and more."""
    folder.mkdir()
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["cp", "--parents", "-t", folder, *filter(None, files.decode().split("\0"))], cwd=ROOT, check=True)
    return folder


def _digest(root: Path, *folders: str) -> str:
    """Of the names and contents of all files in there."""
    whole = hashlib.sha256()
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*") if path.is_file()):
        whole.update(f"{path.relative_to(root)}\0".encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _try(image: Image, work: Path) -> int:
    port = free_port()
    command = [f"--port={port}" if word.startswith("--port=") else word for word in image.command]
    spool = image.volumes[0]
    environ = {**image.environ, "PROFILE_SPOOL_DIR": spool, "PROFILE_STORE": f"file://{spool}/store"}
    environ |= {"PROFILE_TOKEN": "only-for-trying", "PROFILE_ENABLED": "1"}
    # Volumes are writable and begin with what the image has there; the rest of the root is read-only.
    mounts = [f"mount --bind '{image.root}' '{image.root}'", f"mount -o remount,ro,bind '{image.root}'"]
    for number, volume in enumerate(image.volumes):
        shutil.copytree(image.root / volume.lstrip("/"), work / f"volume-{number}", dirs_exist_ok=True)
        subprocess.run(["chown", "--reference", image.root / volume.lstrip("/"), work / f"volume-{number}"], check=True)
        subprocess.run(["chmod", "--reference", image.root / volume.lstrip("/"), work / f"volume-{number}"], check=True)
        mounts.append(f"mount --bind '{work}/volume-{number}' '{image.root}{volume}'")
    mounts.append(f"mount -t proc proc '{image.root}/proc' && mount -t devtmpfs dev '{image.root}/dev'")
    inside = [CHROOT, f"--userspec={image.user}", "--groups=", str(image.root), "env", "-C", image.folder, *command]
    service = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f'{" && ".join(mounts)} && exec "$@"', "sh", *inside], env=environ
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", service)
        status = Path(f"/proc/{service.pid}/status").read_text()
        uid = re.search(r"^Uid:\t(\d+)", status, re.MULTILINE)
        assert uid, status
        print(f"runs as uid {uid[1]}")
        assert uid[1] != "0"
        health = [word.replace(":8000/", f":{port}/") for word in image.health]
        assert health != image.health, f"asks port 8000: {image.health}"
        run_in(image.root, health, image.folder, image.environ, image.user)
        print("its health check finds it well")
        request = urllib.request.Request(f"http://127.0.0.1:{port}/debug/pprof/cpu?seconds=2&upload=0")
        request.add_header("Authorization", "Bearer only-for-trying")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            profile = read_pprof(answer.read())
        print(f"a profile of {profile.duration_ns / 1e9:.1f} s with {len(profile.samples)} stacks")
    finally:
        service.terminate()
        code = service.wait(30)
    stored = sorted(path.relative_to(work) for path in (work / "volume-0").rglob("*.gz"))
    print(f"ended with {code}; stored in its volume: {', '.join(map(str, stored)) or 'nothing'}")
    private = [path for path in (work / "volume-0").iterdir() if path.name != "store"]
    modes = {f"{path.stat().st_mode & 0o777:o}" for path in private}
    print(f"its spool and where its workers meet: {', '.join(path.name for path in private)}, mode {' '.join(modes)}")
    # One for captures that wait, one for the sockets of workers.
    return 0 if stored and len(private) == 2 and modes == {"700"} else 1


def _wait_for(url: str, service: subprocess.Popen[bytes]) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_SECONDS
    while True:
        assert service.poll() is None, f"it ended with {service.returncode}"
        try:
            with direct.open(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, f"{url} did not answer"
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
