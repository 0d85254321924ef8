"""What has arrived in the demo's bucket, and whether it is what it should be."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sample_app.pprof_reader import PprofError, Profile, read_pprof

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# The last window is cut short where the demo ends, and may be over before anything has happened in it.
_SURELY_BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One object of the store, its local copy, and the profile in it or what is wrong with it."""

    key: str
    size: int
    file: Path
    profile: Profile | None
    problem: str | None

    @property
    def kind(self) -> str:
        """`cpu` of `profiles/{service}/cpu/{date}/{time}.pprof.gz`."""
        parts = self.key.split("/")
        return parts[2] if len(parts) > 2 else "?"


class Arrivals:
    """Everything that arrived so far, oldest first; each object is fetched once."""

    def __init__(self, client: S3Client, bucket: str, directory: Path) -> None:
        self._client = client
        self._bucket = bucket
        self._directory = directory
        self.seen: list[Arrival] = []

    def look(self) -> list[Arrival]:
        """What is new since the last look."""
        known = {arrival.key for arrival in self.seen}
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        new = [self._fetch(key) for key in keys if key not in known]
        self.seen += new
        return new

    def newest(self, kind: str, seconds: float) -> Arrival | None:
        """The last profile of that kind, by the start of its window, among those of at least that many seconds."""
        long_enough = (
            arrival
            for arrival in self.seen
            if arrival.kind == kind and arrival.profile and arrival.profile.duration_ns >= seconds * 1e9
        )
        return max(long_enough, key=lambda arrival: arrival.key, default=None)

    def problems(self) -> list[str]:
        """Why the demo did not show what it should; empty when all is well."""
        if not self.seen:
            return ["no object arrived in the store"]
        return [f"{arrival.key}: {arrival.problem}" for arrival in self.seen if arrival.problem]

    def _fetch(self, key: str) -> Arrival:
        body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        file = self._directory / key.replace("/", "_")
        file.write_bytes(body)
        profile, problem = None, None
        if key.endswith(".trace.gz"):  # for Perfetto to read
            problem = None if _is_gzip(body) else "the trace is no gzip"
            return Arrival(key=key, size=len(body), file=file, profile=None, problem=problem)
        try:
            profile = read_pprof(body)
        except PprofError as error:
            problem = str(error)
        else:
            if not profile.samples and profile.duration_ns >= _SURELY_BUSY_SECONDS * 1e9:
                problem = "the profile has no samples"
        return Arrival(key=key, size=len(body), file=file, profile=profile, problem=problem)


def _is_gzip(body: bytes) -> bool:
    try:
        return bool(gzip.decompress(body))
    except (OSError, EOFError, zlib.error):
        return False


def format_arrivals(arrivals: list[Arrival]) -> str:
    """The objects as a table."""
    width = max((len(arrival.key) for arrival in arrivals), default=3)
    lines = [f"{'key':<{width}}  {'kind':<6} {'bytes':>8} {'samples':>8} {'seconds':>8}"]
    for arrival in arrivals:
        if arrival.profile is None:
            contents = arrival.problem or f"{'':>8} {'':>8} ui.perfetto.dev"
        else:
            contents = f"{len(arrival.profile.samples):>8} {arrival.profile.duration_ns / 1e9:>8.1f}"
        lines.append(f"{arrival.key:<{width}}  {arrival.kind:<6} {arrival.size:>8} {contents}")
    return "\n".join(lines)
