"""`s3:PutObject` on the service's own prefix is all it needs, by the judgement of moto, which enforces IAM policies."""

from __future__ import annotations

import json

import pytest
from integration_kit.fake_s3 import REGION
from integration_kit.moto import Moto
from integration_kit.pprof import read_pprof
from integration_kit.servers import Servers

pytestmark = [pytest.mark.server, pytest.mark.s3]

BUCKET = "profiles-of-tests"


@pytest.fixture(scope="module")
def moto(shared_servers: Servers) -> Moto:
    server = Moto.start(shared_servers)
    server.client("s3").create_bucket(Bucket=BUCKET)
    return server


def _user_who_may(moto: Moto, name: str, action: str, resource: str) -> dict[str, str]:
    """The environment of a service that runs as a user with this one permission."""
    iam = moto.client("iam")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]}
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {
        "AWS_ENDPOINT_URL_S3": moto.endpoint,
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_DEFAULT_REGION": REGION,
        "PROFILE_S3_BUCKET": BUCKET,
        "PROFILE_SERVICE_NAME": "shop",
        "PROFILE_ENABLED": "1",
        "PROFILE_DURATION": "1s",
        "PROFILE_TYPES": "cpu",
    }


def test_a_permission_to_put_is_enough_and_needed(moto: Moto, servers: Servers) -> None:
    right = _user_who_may(moto, "right", "s3:PutObject", f"arn:aws:s3:::{BUCKET}/profiles/shop/*")
    wrong_prefix = _user_who_may(moto, "wrong", "s3:PutObject", f"arn:aws:s3:::{BUCKET}/profiles/office/*")
    reader = _user_who_may(moto, "reader", "s3:GetObject", f"arn:aws:s3:::{BUCKET}/*")
    moto.enforce(True)
    stores, refused = servers.uvicorn(right), [servers.uvicorn(wrong_prefix), servers.uvicorn(reader)]
    key = stores.wait_for_log(r"stored kind=cpu key=(\S+)")[1]
    assert stores.lines("NOT stored") == []
    for server in refused:
        line = server.wait_for_log("NOT stored .*$")[0]
        assert "S3 answered 403 AccessDenied" in line
        assert f"allow s3:PutObject on arn:aws:s3:::{BUCKET}/profiles/shop/* for the role of this process" in line
    moto.enforce(False)
    body = moto.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    assert read_pprof(body).partial is None
