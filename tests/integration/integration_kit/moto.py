"""A moto server: AWS as far as policies go, since it enforces IAM when it is told to."""

from __future__ import annotations

import http.client
import sys
from typing import Any

import boto3

from integration_kit.fake_s3 import REGION
from integration_kit.servers import Servers, free_port
from integration_kit.tools import need_module
from integration_kit.waiting import eventually


class Moto:
    """A running moto server; policies are enforced once `enforce(True)` has been called."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.endpoint = f"http://127.0.0.1:{port}"

    @classmethod
    def start(cls, servers: Servers) -> Moto:
        """A new one, as soon as it answers."""
        need_module("moto.server", "pip install 'moto[server]'")
        port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        # Roles may have AWS's own policies, such as that of ECS.
        servers.start(command, {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true"})
        server = cls(port)
        eventually(server.answers, "moto answers")
        return server

    def client(self, service: str, credentials: dict[str, str] | None = None) -> Any:
        """A boto3 client of the administrator, or with the AWS_ variables in `credentials`."""
        given = credentials or {}
        return boto3.session.Session().client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=given.get("AWS_ACCESS_KEY_ID", "administrator"),
            aws_secret_access_key=given.get("AWS_SECRET_ACCESS_KEY", "any"),
            aws_session_token=given.get("AWS_SESSION_TOKEN"),
        )

    def enforce(self, on: bool) -> None:
        """moto counts requests that it lets pass unasked."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("POST", "/moto-api/reset-auth", "0" if on else "inf")
            assert connection.getresponse().read()
        finally:
            connection.close()

    def answers(self) -> bool:
        """Whether it is ready."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", "/moto-api/")
            return connection.getresponse().status == 200
        except ConnectionError:
            return False
        finally:
            connection.close()
