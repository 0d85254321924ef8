"""What Terraform has applied: what the task may do, what readers may do, and what becomes of profiles. moto judges."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError
from infra_kit.artifacts import make_artifact
from infra_kit.roles import Call, answer, assume, enforced
from infra_kit.terraform import RefusedError, Terraform, missing
from integration_kit.moto import Moto

from profiling_middleware.stores.s3 import S3Store
from profiling_middleware.uploads import Uploads
from profiling_middleware.waiting.backlog import Backlog
from profiling_middleware.waiting.memory import Memory

pytestmark = [pytest.mark.server, pytest.mark.s3]

BUCKET, OTHER_BUCKET = "stl-debugging-prod", "stl-debugging-staging"
ACCOUNT = "123456789012"
THERE = "profiles/sample-app/cpu/2026-01-26/15-30-00.pprof.gz"


@dataclass(frozen=True)
class Applied:
    """What is there after `terraform apply -var-file=prod.tfvars`."""

    moto: Moto
    outputs: dict[str, Any]
    bucket_policy: dict[str, Any] | None
    """Nothing if this provider is a stand-in that applies none."""
    reader_arn: str


@pytest.fixture(scope="module")
def applied(terraform: Terraform, moto: Moto) -> Applied:
    trust = '{"Version": "2012-10-17", "Statement": []}'
    reader = moto.client("iam").create_role(RoleName="on-call", AssumeRolePolicyDocument=trust)
    plan = terraform.plan("prod", reader_role_names=["on-call"])
    outputs = terraform.apply()
    _attach("on-call", plan.resource("aws_iam_policy.read_profiles"), moto)
    s3 = moto.client("s3")
    bucket_policy = _found(lambda: json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"]))
    # moto knows no conditions on buckets, and would take the Deny of what is not TLS for a Deny of everything.
    s3.delete_bucket_policy(Bucket=BUCKET)
    s3.create_bucket(Bucket=OTHER_BUCKET)
    s3.put_object(Bucket=BUCKET, Key=THERE, Body=b"a profile")
    return Applied(moto, outputs, bucket_policy, reader["Role"]["Arn"])


def _attach(role: str, planned: dict[str, Any], moto: Moto) -> None:
    """What Terraform has planned, where the provider is a stand-in that applies no policies of their own."""
    iam = moto.client("iam")
    if not iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        made = iam.create_policy(PolicyName=planned["name"], PolicyDocument=planned["policy"])
        iam.attach_role_policy(RoleName=role, PolicyArn=made["Policy"]["Arn"])


def _found(ask: Callable[[], Any]) -> Any:
    """What AWS answers, unless it says that there is no such thing."""
    try:
        return ask()
    except ClientError as error:
        code = str(error.response["Error"]["Code"])
        if code.startswith("NoSuch") or "NotFound" in code:
            return None
        raise


@pytest.fixture(scope="module")
def task(applied: Applied) -> dict[str, str]:
    """The credentials of a task."""
    return assume(applied.moto, applied.outputs["task_role_arn"])


@pytest.fixture(scope="module")
def reader(applied: Applied) -> dict[str, str]:
    """The credentials of somebody who debugs."""
    return assume(applied.moto, applied.reader_arn)


def test_profiles_expire_after_30_days(applied: Applied) -> None:
    rules = applied.moto.client("s3").get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]

    expiring = [(rule["Filter"], rule["Expiration"]["Days"], rule["Status"]) for rule in rules if "Expiration" in rule]
    assert expiring == [({"Prefix": "profiles/"}, 30, "Enabled")]


def test_uploads_that_were_never_completed_are_aborted(applied: Applied) -> None:
    rules = applied.moto.client("s3").get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]

    aborting = [rule["AbortIncompleteMultipartUpload"] for rule in rules if "Expiration" not in rule]
    assert aborting == [{"DaysAfterInitiation": 1}]


def test_nothing_is_public(applied: Applied) -> None:
    block = applied.moto.client("s3").get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]

    assert set(block.values()) == {True}
    assert len(block) == 4


def test_objects_are_encrypted_and_the_owners(applied: Applied) -> None:
    s3 = applied.moto.client("s3")
    encrypted = _found(lambda: s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"])
    owned = _found(lambda: s3.get_bucket_ownership_controls(Bucket=BUCKET)["OwnershipControls"]["Rules"])
    if owned is None:
        missing("this provider applies no ownership of objects")

    assert encrypted is not None
    (encryption,), (ownership,) = encrypted, owned
    assert encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert ownership["ObjectOwnership"] == "BucketOwnerEnforced"


def test_only_tls_is_let_in(applied: Applied) -> None:
    if applied.bucket_policy is None:
        missing("this provider applies no policy of a bucket")

    (statement,) = applied.bucket_policy["Statement"]

    assert (statement["Effect"], statement["Action"]) == ("Deny", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_task_runs_the_uploader(
    applied: Applied, task: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "profiling_middleware")
    for name, value in {**task, "AWS_ENDPOINT_URL_S3": applied.moto.endpoint, "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    logger = logging.getLogger("profiling_middleware")
    uploads = Uploads(S3Store(BUCKET, ACCOUNT), Backlog(None, Memory(), logger), logger, lambda *_: None)
    first, second = make_artifact("0" * 16, b"of one"), make_artifact("1" * 16, b"of the other")
    assert first.key == second.key, "of two processes, in the same second"

    with enforced(applied.moto):
        uploads.add(first)
        uploads.add(second)
        uploads.finish(30)

    assert (uploads.counts.stored, uploads.counts.failures) == (2, 0), caplog.text
    s3 = applied.moto.client("s3")
    stored = {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in (first.key, second.own_key)}
    assert stored == {first.key: first.body, second.own_key: second.body}


@pytest.mark.parametrize(
    "call",
    [
        ("s3", "get_object", {"Bucket": BUCKET, "Key": THERE}),
        ("s3", "list_objects_v2", {"Bucket": BUCKET, "Prefix": "profiles/sample-app/"}),
        ("s3", "put_object", {"Bucket": BUCKET, "Key": "profiles/other-app/cpu/x.pprof.gz", "Body": b""}),
        ("s3", "put_object", {"Bucket": BUCKET, "Key": "profiles/sample-app2/cpu/x.pprof.gz", "Body": b""}),
        ("s3", "put_object", {"Bucket": BUCKET, "Key": "x", "Body": b""}),
        ("s3", "put_object", {"Bucket": OTHER_BUCKET, "Key": THERE, "Body": b""}),
        ("s3", "get_bucket_lifecycle_configuration", {"Bucket": BUCKET}),
        ("iam", "list_roles", {}),
        ("s3", "delete_object", {"Bucket": BUCKET, "Key": THERE}),
    ],
    ids=lambda call: f"{call[1]}-{call[2].get('Bucket', '')}-{call[2].get('Key', '')}",
)
def test_the_task_may_do_nothing_else(call: Call, applied: Applied, task: dict[str, str]) -> None:
    with enforced(applied.moto):
        assert answer(applied.moto, call, task) == "AccessDenied"

    assert answer(applied.moto, call) == "ok", "it is refused for want of a permission"
    applied.moto.client("s3").put_object(Bucket=BUCKET, Key=THERE, Body=b"a profile")


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        (("s3", "list_objects_v2", {"Bucket": BUCKET, "Prefix": "profiles/"}), True),
        (("s3", "get_object", {"Bucket": BUCKET, "Key": THERE}), True),
        (("s3", "put_object", {"Bucket": BUCKET, "Key": "profiles/sample-app/x", "Body": b""}), False),
        (("s3", "list_objects_v2", {"Bucket": OTHER_BUCKET}), False),
        (("s3", "delete_object", {"Bucket": BUCKET, "Key": THERE}), False),
    ],
    ids=lambda call: f"{call[1]}-{call[2]['Bucket']}" if isinstance(call, tuple) else "",
)
def test_a_reader_lists_and_gets(call: Call, allowed: bool, applied: Applied, reader: dict[str, str]) -> None:
    with enforced(applied.moto):
        assert answer(applied.moto, call, reader) == ("ok" if allowed else "AccessDenied")

    applied.moto.client("s3").put_object(Bucket=BUCKET, Key=THERE, Body=b"a profile")


def test_the_bucket_is_not_destroyed_by_accident(applied: Applied, terraform: Terraform) -> None:
    with pytest.raises(RefusedError, match="Instance cannot be destroyed"):
        terraform.plan_destroy("prod")
