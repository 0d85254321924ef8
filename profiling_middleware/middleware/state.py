"""The state of a profiler as JSON. The names are a promise to whoever reads them: they may be added to, not changed."""

from __future__ import annotations

import json

from profiling_middleware.last_failures import Failure
from profiling_middleware.middleware.messages import AdminResponse
from profiling_middleware.status import EngineStatus, Status, WaitingStatus
from profiling_middleware.units import format_time
from profiling_middleware.upload_counts import StoredCapture, UploadCounts


def state_response(status: Status, *, acted_on: str | None = None) -> AdminResponse:
    """The state; `acted_on` says whose it is that a request has changed."""
    document = state_document(status)
    if acted_on is not None:
        document = {"acted_on": acted_on, **document}
    body = json.dumps(document, ensure_ascii=False, indent=2).encode("utf-8", "replace") + b"\n"
    return AdminResponse(200, body, "application/json", (("X-Profile-Instance", status.instance),))


def state_document(status: Status) -> dict[str, object]:
    """What JSON can hold. Times are RFC 3339 in UTC, shares are fractions of one core; null is what is not there."""
    return {
        "service": status.service,
        "instance": status.instance,
        "enabled": status.enabled,
        "kinds": list(status.kinds),
        "interval_seconds": status.interval,
        "duration_seconds": status.duration,
        "next_window_seconds": status.next_window,
        "missed_windows": status.missed_windows,
        "running_captures": status.running_captures,
        "failed_captures": status.failed_captures,
        "limits_met": dict(status.limits_met),
        "engine": _engine(status.engine),
        "uploads": {"store": status.store or None, **_uploads(status.uploads)},
        "waiting": _waiting(status.waiting),
        "last_uploads": [_stored(stored) for stored in status.uploads.last_stored],
        "last_failures": [_failure(failure) for failure in status.last_failures],
    }


def _engine(engine: EngineStatus) -> dict[str, object]:
    return {
        "name": engine.name,
        "why_not_native": engine.why_not_native,
        "sampling_interval_seconds": engine.interval,
        "own_cpu_seconds": engine.cpu_seconds,
        "own_cpu_share": engine.cpu_share,
        "max_own_cpu_share": engine.max_share,
    }


def _uploads(counts: UploadCounts) -> dict[str, object]:
    return {
        "taken": counts.taken,
        "adopted": counts.adopted,
        "stored": counts.stored,
        "stored_bytes": counts.stored_bytes,
        "failed": counts.failures,
        "lost": counts.dropped,
    }


def _waiting(waiting: WaitingStatus) -> dict[str, object]:
    return {
        "captures": waiting.captures,
        "bytes": waiting.size,
        "place": waiting.place,
        "spooled_captures": waiting.spooled,
        "spooled_bytes": waiting.spooled_size,
        "spool_trouble": waiting.spool_trouble,
    }


def _stored(stored: StoredCapture) -> dict[str, object]:
    return {
        "key": stored.key,
        "kind": stored.kind,
        "bytes": stored.size,
        "stored_at": format_time(stored.stored_ns),
    }


def _failure(failure: Failure) -> dict[str, object]:
    return {
        "what": failure.what,
        "reason": failure.reason,
        "times": failure.times,
        "last_at": format_time(failure.last_ns),
    }
