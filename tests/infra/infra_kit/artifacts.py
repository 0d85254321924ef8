"""Captures that are ready to be uploaded."""

from __future__ import annotations

from profiling_middleware.keys import own_key, shared_key
from profiling_middleware.model import Artifact, CaptureInfo


def make_artifact(capture_id: str, body: bytes) -> Artifact:
    """One of the sample app's, always of the same second."""
    info = CaptureInfo(
        kind="cpu",
        service="sample-app",
        instance="web-1-7-0a1b2c3d",
        capture_id=capture_id,
        started_ns=1_769_441_401_000_000_000,
        trigger="periodic",
    )
    return Artifact(info=info, key=shared_key(info), own_key=own_key(info), body=body)
