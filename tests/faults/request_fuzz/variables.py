"""Settings made up by chance, as an environment has them."""

from __future__ import annotations

import random

NAMES = ["ENABLED", "S3_BUCKET", "S3_BUCKET_OWNER", "ENVIRONMENT", "SERVICE_NAME", "INTERVAL", "DURATION", "TYPES", "STORE", "TOKEN",
         "MAX_SECONDS", "ENGINE", "SAMPLE_RATE", "MAX_OVERHEAD", "SPOOL_DIR", "SPOOL_MAX_BYTES", "SLOW_REQUEST"]  # fmt: skip
_GOOD = {
    "ENABLED": ["1", "0", "true", "off"],
    "S3_BUCKET": ["acme-debugging", "bucket-dev"],
    "S3_BUCKET_OWNER": ["123456789012"],
    "ENVIRONMENT": ["dev", "local", "test", "prod", "staging"],
    "SERVICE_NAME": ["shop", "a.b_c-d"],
    "INTERVAL": ["5m", "1h", "120s"],
    "DURATION": ["2m", "1s", "90s"],
    "TYPES": ["cpu", "cpu,wall", "block, mutex,trace"],
    "STORE": ["s3", "file:///tmp/profiles"],
    "MAX_SECONDS": ["1", "300", "86400"],
    "ENGINE": ["auto", "python", "polling", "native"],
    "SAMPLE_RATE": ["1", "100", "1000"],
    "MAX_OVERHEAD": ["1%", "0.5", "100%"],
    "SPOOL_DIR": ["/tmp"],
    "SPOOL_MAX_BYTES": ["1MiB", "64MiB", "10000000"],
    "SLOW_REQUEST": ["1s", "250ms"],
}
_BAD = ["", " ", "\x00", "-1", "0", "nan", "inf", "1e400", "9" * 400, "9" * 400 + "s", "9" * 400 + "%", "9" * 308 + "GiB", "." * 9, "\u0661", "\u00e9", "\udcff", "../..", "file://", "file:///", "file://x/y",
        "file:///a?b", "[::1", "http://[", "s3://x", "a,b", ",", "cpu,cpu", "1s1", "-5m", "5", "%", "200%", "on", "a" * 5000, "\r\nX: y", "1_0",
        "127.0.0.1", "A" * 64, "..", "xn--a", "x.y"]  # fmt: skip


def make_variables(rng: random.Random) -> dict[str, str]:
    """Some of them, and of those most as they should be."""
    chosen = rng.sample(NAMES, rng.choice([0, 1, 2, 3, 5, len(NAMES)]))
    found = {f"PROFILE_{name}": _value(rng, name) for name in chosen}
    if rng.random() < 0.6:
        found["PROFILE_TOKEN"] = _token(rng)
    if rng.random() < 0.5:
        found["PROFILE_ENVIRONMENT"] = rng.choice(["dev", "local", "prod"])
    if rng.random() < 0.2:
        found["OTEL_SERVICE_NAME"] = rng.choice(["shop", *_BAD])
    return found


def _value(rng: random.Random, name: str) -> str:
    if name == "TOKEN":
        return _token(rng)
    return rng.choice(_BAD) if rng.random() < 0.1 else rng.choice(_GOOD[name])


def _token(rng: random.Random) -> str:
    # What stands nowhere else, so that it can be looked for.
    token = f"tOk{rng.randrange(16**12):012x}"
    return rng.choice(
        [token] * 12 + [f"{token}'\"\\", f"%{token}&=+", f"a,{token}", f"{token} x", f"\u00e9{token}", token * 100]
    )
