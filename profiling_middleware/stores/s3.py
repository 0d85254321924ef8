"""The owner's S3 bucket. The only file that knows boto3; it is imported when the client is made, never before.

Needs `s3:PutObject` on the service's prefix and nothing else: no HEAD, no list, no tags, no ACL.
"""

from __future__ import annotations

# Only to have it: boto3 imports it, and it refuses to be imported at exit, when the first upload may be the last.
import concurrent.futures.thread  # noqa: F401
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from profiling_middleware.gil import giving_way
from profiling_middleware.model import Body, CaptureInfo
from profiling_middleware.process import THIS_PROCESS
from profiling_middleware.stores.base import KeyTaken, StoreError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Bounds on one put: S3 answers in well under a second, and what fails is tried again by the pipeline.
_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 3, 10, 2

_REMEDIES = {
    "AccessDenied": "allow s3:PutObject on arn:aws:s3:::{bucket}/profiles/{service}/* for the role of this "
    "process, or check PROFILE_S3_BUCKET_OWNER ({owner})",
    "AllAccessDisabled": "the account of the bucket is suspended",
    "NoSuchBucket": "create the bucket (infra/), or name yours in PROFILE_S3_BUCKET and PROFILE_ENVIRONMENT",
    "PermanentRedirect": "the bucket lies in another region: set AWS_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket lies in another region: set AWS_REGION to it",
    "InvalidAccessKeyId": "the access key is unknown: give this process valid credentials",
    "SignatureDoesNotMatch": "the secret key is wrong: give this process valid credentials",
    "ExpiredToken": "the credentials have expired: give this process valid credentials",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: synchronise it",
    "BadDigest": "the body was changed on its way: look at the proxy or network in between",
    "XAmzContentChecksumMismatch": "the body was changed on its way: look at the proxy or network in between",
    "EntityTooLarge": "a proxy on the way to S3 takes no body of this size: raise its limit (of nginx "
    "client_max_body_size)",
    "SlowDown": "S3 asks for fewer requests on this prefix: lengthen PROFILE_INTERVAL if this persists",
}
_TAKEN = "PreconditionFailed"
# Of one capture: its length, key or metadata. Not 400, which is also said of credentials and clocks.
_OF_CAPTURE = frozenset((411, 413, 414, 431))
_CODES_OF_CAPTURE = frozenset(("EntityTooLarge", "KeyTooLongError", "MetadataTooLarge"))


class S3Store:
    """Puts objects into one bucket and never replaces one."""

    def __init__(self, bucket: str, owner: str | None) -> None:
        self._bucket = bucket
        self._owner = owner
        self._client: S3Client | None = None
        self._preparing = ExitStack()

    @property
    def place(self) -> str:
        return f"s3://{self._bucket}"

    def warm_up(self) -> None:
        self._ready_client()

    def put(self, key: str, body: Body, info: CaptureInfo) -> None:
        client = self._ready_client()
        from botocore.exceptions import BotoCoreError, ClientError

        metadata = {"capture-id": info.capture_id, "instance": info.instance}
        owner = {"ExpectedBucketOwner": self._owner} if self._owner else {}
        try:
            # boto3 works in Python until the request goes out; what waits for the answer needs no consideration.
            with self._preparing as preparing:
                preparing.enter_context(giving_way())
                client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=body if isinstance(body, bytes) else body.open(),
                    IfNoneMatch="*",
                    ContentType="application/octet-stream",
                    Metadata=metadata,
                    **owner,  # type: ignore[arg-type]
                )
        except ClientError as error:
            code, status = self._code(error.response)
            if code == _TAKEN or status == 412:
                raise KeyTaken(key) from None
            brief = f"S3 answered {status} {code}" if status in (403, 404) else None
            of_capture = status in _OF_CAPTURE or code in _CODES_OF_CAPTURE
            explained = self._explain(code, status, str(error), info)
            raise StoreError(explained, brief=brief, of_capture=of_capture) from error
        except BotoCoreError as error:
            if _is_about_credentials(error):
                # A client that found none when it was made never looks again: they may come later.
                self._client = None
            raise StoreError(self._explain_unreached(error)) from error

    def _ready_client(self) -> S3Client:
        if self._client is None:
            with THIS_PROCESS.imports.underway():
                self._client = self._make_client()
            self._client.meta.events.register("before-send.s3.PutObject", lambda **_: self._preparing.close())
        return self._client

    def _make_client(self) -> S3Client:
        try:
            import encodings.idna  # noqa: F401 - the first connection would import it

            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError as error:
            raise StoreError(f"boto3 cannot be imported ({error}): install boto3") from error
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            user_agent_extra="profiling-middleware",
        )
        try:
            # A session of its own: boto3's default one is shared with the application.
            session = boto3.session.Session()
            # ECS and Lambda set AWS_REGION, which boto3 does not read.
            region = session.region_name or os.environ.get("AWS_REGION") or None
            return session.client("s3", region_name=region, config=config)
        except (BotoCoreError, ValueError) as error:
            raise StoreError(f"no S3 client: {error}: check the AWS_ variables of this process") from error

    @staticmethod
    def _code(response: object) -> tuple[str, int]:
        if not isinstance(response, dict):
            return "", 0
        code = response.get("Error", {}).get("Code", "")
        return str(code), int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))

    def _explain(self, code: str, status: int, text: str, info: CaptureInfo) -> str:
        by_status = {
            403: "AccessDenied",
            404: "NoSuchBucket",
            301: "PermanentRedirect",
            413: "EntityTooLarge",
            503: "SlowDown",
        }
        remedy = _REMEDIES.get(code) or _REMEDIES.get(by_status.get(status, ""), "it is tried again")
        remedy = remedy.format(bucket=self._bucket, service=info.service, owner=self._owner or "not set")
        return f"S3 answered {status} {code or 'without a code'} ({text}): {remedy}"

    def _explain_unreached(self, error: Exception) -> str:
        kind = type(error).__name__
        if _is_about_credentials(error):
            return f"{error}: give this process credentials (task role, instance profile or AWS_ variables)"
        return f"S3 was not reached ({kind}: {error}): check the network, the endpoint and AWS_REGION"


def _is_about_credentials(error: Exception) -> bool:
    kind = type(error).__name__
    return "Credential" in kind or kind == "TokenRetrievalError"
