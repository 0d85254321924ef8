"""compose.yaml without Docker: its commands, with its variables, on this machine instead of in containers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import BotoCoreError, ClientError
from infra_kit.terraform import INFRA
from integration_kit.servers import Server, Servers
from integration_kit.waiting import eventually

from sample_app.ports import free_port
from sample_app.seaweedfs import Ports, find_weed

pytestmark = [pytest.mark.server, pytest.mark.s3]

ROOT = INFRA.parent
BUCKET = "stl-debugging-dev"


@pytest.fixture
def ports() -> Iterator[Ports]:
    """Those of an S3 server, which leaves sockets behind."""
    ports = Ports.pick()
    yield ports
    for socket in ports.sockets():
        socket.unlink(missing_ok=True)


def test_the_app_uploads_to_the_server_beside_it(servers: Servers, ports: Ports, tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    port = ports.s3
    s3 = _start_s3(servers, compose, ports, tmp_path)
    client = _client(compose["services"]["keys"]["environment"], port)
    eventually(lambda: _answers(client), f"the S3 server answers; {s3.log[-2000:]}")
    app = compose["services"]["app"]
    environ = {**app["environment"], "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}", "PYTHONPATH": str(ROOT)}
    environ |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    # Windows of the same kind in a shorter time; everything else as it stands there.
    environ |= {"PROFILE_DURATION": "1s", "PROFILE_SPOOL_DIR": str(tmp_path / "spool")}
    command = [f"--port={free_port()}" if word.startswith("--port=") else word for word in app["command"]]

    service = servers.start(command, environ)

    key = service.wait_for_log(rf"stored kind=cpu key=(\S+) .* in s3://{BUCKET}")[1]
    assert key in [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET)["Contents"]]


def _start_s3(servers: Servers, compose: dict[str, Any], ports: Ports, directory: Path) -> Server:
    """The server's command; what is a container's own there (addresses, ports, folders) must be this machine's here."""
    identities = directory / "identities.json"
    identities.write_text(json.dumps(json.loads(compose["configs"]["identities"]["content"])))
    (directory / "data").mkdir()
    here = {
        "-dir=": str(directory / "data"),
        "-ip=": "127.0.0.1",
        "-ip.bind=": "127.0.0.1",
        "-s3.port=": str(ports.s3),
        "-s3.config=": str(identities),
    }
    command = compose["services"]["s3"]["command"]
    assert {option for option in here if any(word.startswith(option) for word in command)} == set(here)
    words = [
        next((option + value for option, value in here.items() if word.startswith(option)), word) for word in command
    ]
    inner = {
        "s3.port.grpc": ports.s3_grpc,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": directory / "s3.sock",
        "master.port": ports.master,
        "master.port.grpc": ports.master_grpc,
        "volume.port": ports.volume,
        "volume.port.grpc": ports.volume_grpc,
        "filer.port": ports.filer,
        "filer.port.grpc": ports.filer_grpc,
        "filer.localSocket": directory / "filer.sock",
        "admin.port": ports.admin,
        "admin.port.grpc": ports.admin_grpc,
    }
    return servers.start([find_weed(), *words, *(f"-{name}={value}" for name, value in inner.items())], {})


def _client(environ: dict[str, str], port: int) -> Any:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=environ["AWS_REGION"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
    )


def _answers(client: Any) -> bool:
    try:
        client.list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True
