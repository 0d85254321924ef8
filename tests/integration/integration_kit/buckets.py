"""A bucket of the embedded S3 server, seen by its owner."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from integration_kit.pprof import ReadProfile, read_pprof
from integration_kit.waiting import eventually
from sample_app.s3_server import S3Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_KEY = re.compile(
    r"profiles/(?P<service>[^/]+)/(?P<kind>[a-z]+)/(?P<day>\d{4}-\d\d-\d\d)/(?P<time>\d\d-\d\d-\d\d)"
    r"(?:_(?P<own>[^/]+))?\.(?P<format>pprof|trace)\.gz"
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the layout that the project promises, taken apart."""

    service: str
    kind: str
    started: datetime
    own: str | None
    """The instance and capture id of a key that nobody else can have."""

    @classmethod
    def parse(cls, key: str) -> Key:
        match = _KEY.fullmatch(key)
        assert match, f"{key} is not of the promised layout"
        assert match["format"] == ("trace" if match["kind"] == "trace" else "pprof"), key
        started = datetime.strptime(f"{match['day']} {match['time']}", "%Y-%m-%d %H-%M-%S").replace(tzinfo=UTC)
        return cls(match["service"], match["kind"], started, match["own"])


class Bucket:
    """One bucket, new and empty."""

    def __init__(self, server: S3Server, client: S3Client, name: str) -> None:
        self._server = server
        self._client = client
        self.name = name
        client.create_bucket(Bucket=name)

    def settings(self, **more: str) -> dict[str, str]:
        """The environment of a developer's service that stores here, with `more` settings."""
        return {
            **self._server.environ(),
            "PROFILE_ENVIRONMENT": "dev",
            "PROFILE_S3_BUCKET": self.name,
            "PROFILE_SERVICE_NAME": "shop",
            **more,
        }

    def list_keys(self, prefix: str = "profiles/") -> list[str]:
        """The keys in it, in their order."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def wait_for_keys(self, count: int, prefix: str = "profiles/") -> list[str]:
        """The same, as soon as there are that many."""

        def enough() -> list[str] | None:
            keys = self.list_keys(prefix)
            return keys if len(keys) >= count else None

        return eventually(enough, f"{count} objects under {prefix}", pause=0.1) or []

    def body(self, key: str) -> bytes:
        """The bytes of an object."""
        return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def profile(self, key: str) -> ReadProfile:
        """An object, read as a profile; waits until it is there."""
        eventually(lambda: self.list_keys(key), f"an object under {key}")
        return read_pprof(self.body(key))

    def metadata(self, key: str) -> dict[str, str]:
        """What was stored with an object."""
        return self._client.head_object(Bucket=self.name, Key=key)["Metadata"]

    def put(self, key: str, body: bytes) -> None:
        """Puts an object as somebody else would."""
        self._client.put_object(Bucket=self.name, Key=key, Body=body)
