"""Whoever a moto server takes one for: credentials of roles, and calls that are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError
from integration_kit.moto import Moto

Call = tuple[str, str, dict[str, Any]]
"""A service, a method of its boto3 client, and what it is called with."""


def assume(moto: Moto, role_arn: str) -> dict[str, str]:
    """The AWS_ variables of a process that runs as this role. As nobody is refused then, anybody gets it."""
    given = moto.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="test")["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
        "AWS_SESSION_TOKEN": given["SessionToken"],
    }


@contextmanager
def enforced(moto: Moto) -> Iterator[None]:
    """Policies hold meanwhile."""
    moto.enforce(True)
    try:
        yield
    finally:
        moto.enforce(False)


def answer(moto: Moto, call: Call, credentials: dict[str, str] | None = None) -> str:
    """`ok`, or the code of the error."""
    service, method, arguments = call
    try:
        getattr(moto.client(service, credentials), method)(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "ok"
