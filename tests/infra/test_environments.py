"""dev.tfvars, staging.tfvars and prod.tfvars: what each of them starts."""

from __future__ import annotations

import pytest
from infra_kit.terraform import Terraform

from profiling_middleware import Settings


@pytest.mark.parametrize(("environment", "on"), [("dev", False), ("staging", True), ("prod", True)])
def test_profiling_is_off_in_dev_and_on_elsewhere(environment: str, on: bool, terraform: Terraform) -> None:
    plan = terraform.plan(environment)

    assert ("--enable-profiling" in plan.container["command"]) is on
    assert plan.resource("aws_s3_bucket.debugging")["bucket"] == f"stl-debugging-{environment}"


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_the_profiler_takes_what_the_container_is_told(environment: str, terraform: Terraform) -> None:
    variables = {pair["name"]: pair["value"] for pair in terraform.plan(environment).container["environment"]}

    settings = Settings.from_env(variables)

    assert settings.bucket_name == f"stl-debugging-{environment}"
    assert (settings.service_name, settings.interval, settings.duration) == ("sample-app", 300, 120)
    assert settings.bucket_owner == "123456789012"


def test_a_token_is_a_secret_of_the_container(terraform: Terraform) -> None:
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:profiling-AbCdEf"

    container = terraform.plan("prod", token_arn=arn).container

    assert container["secrets"] == [{"name": "PROFILE_TOKEN", "valueFrom": arn}]
    assert "PROFILE_TOKEN" not in [pair["name"] for pair in container["environment"]]
