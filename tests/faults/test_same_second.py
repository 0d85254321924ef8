"""Eight workers store four kinds in the same second: all of it is there, and what is put again makes no third copy."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest
from integration_kit.buckets import Bucket, Key
from integration_kit.servers import Servers

from profiling_middleware.keys import own_key, shared_key
from profiling_middleware.model import Artifact, CaptureInfo
from profiling_middleware.stores.s3 import S3Store
from profiling_middleware.uploads import Uploads
from profiling_middleware.waiting.backlog import Backlog
from profiling_middleware.waiting.memory import Memory
from sample_app.s3_server import S3Server

WORKERS = 8
KINDS = ("cpu", "block", "mutex", "trace")


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty one, which this process's boto3 reaches, too."""
    for name, value in s3.environ().items():
        monkeypatch.setenv(name, value)
    return Bucket(s3, s3.client(), "same-second-dev")


@pytest.mark.s3
@pytest.mark.server
def test_all_that_eight_workers_store_in_the_same_second_is_there_once(servers: Servers, bucket: Bucket) -> None:
    server = servers.gunicorn(
        bucket.settings(
            PROFILE_ENABLED="1", PROFILE_INTERVAL="10m", PROFILE_DURATION="1s", PROFILE_TYPES=",".join(KINDS)
        ),
        "--workers",
        str(WORKERS),
        "--threads",
        "2",
        "--preload",
    )
    keys = bucket.wait_for_keys(WORKERS * len(KINDS))
    server.terminate()

    keys = [key for key in bucket.list_keys() if key in keys]
    infos = {key: bucket.metadata(key) for key in keys}
    assert len({info["capture-id"] for info in infos.values()}) == len(keys) == WORKERS * len(KINDS)
    assert len({info["instance"] for info in infos.values()}) == WORKERS
    # Forked within a moment: the seconds are few, and whoever came second has a key of its own.
    seconds = Counter((Key.parse(key).kind, Key.parse(key).started) for key in keys)
    assert max(seconds.values()) > 1
    for (kind, started), count in seconds.items():
        own = [key for key in keys if Key.parse(key).kind == kind and Key.parse(key).started == started]
        assert sum(Key.parse(key).own is None for key in own) == 1, (count, own)

    for _ in range(2):
        _put_again(bucket, infos)
    assert Counter(bucket.metadata(key)["capture-id"] for key in bucket.list_keys()).most_common(1)[0][1] <= 2


def _put_again(bucket: Bucket, infos: dict[str, dict[str, str]]) -> None:
    """As those whose answers were lost."""
    logger = logging.getLogger("profiling_middleware")
    uploads = Uploads(S3Store(bucket.name, None), Backlog(None, Memory(), logger), logger, lambda seconds, action: None)
    for key, metadata in infos.items():
        parsed = Key.parse(key)
        info = CaptureInfo(
            kind=parsed.kind,
            service=parsed.service,
            instance=metadata["instance"],
            capture_id=metadata["capture-id"],
            started_ns=int(parsed.started.timestamp()) * 10**9,
            trigger="periodic",
        )
        uploads.add(Artifact(info=info, key=shared_key(info), own_key=own_key(info), body=bucket.body(key)))
    uploads.finish(60)
    assert uploads.counts.stored == len(infos), uploads.counts
