"""Terraform on a copy of infra/ or a part of it, against a moto server: what it plans, applies and refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

INFRA = Path(__file__).parents[3] / "infra"

# Beside the files of the copy: the real provider asks AWS who it is, unless it is told not to.
_PROVIDER = """
provider "aws" {
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}
"""

GIVEN = {"image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/sample-app:1", "subnet_ids": ["subnet-1"]}
"""What no environment's file has."""


class RefusedError(Exception):
    """Terraform said no; the message is what it said."""


class Plan:
    """What Terraform would do."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._root = content["planned_values"]["root_module"]

    def resource(self, address: str) -> dict[str, Any]:
        """The planned values of one resource."""
        resources = {each["address"]: each["values"] for each in _resources(self._root)}
        assert address in resources, sorted(resources)
        values: dict[str, Any] = resources[address]
        return values

    @property
    def container(self) -> dict[str, Any]:
        """The definition of the sample app's container."""
        task = self.resource("module.sample_app[0].aws_ecs_task_definition.this")
        (container,) = json.loads(task["container_definitions"])
        assert isinstance(container, dict)
        return container


class Terraform:
    """One copy of a configuration with its own state."""

    def __init__(self, command: str, directory: Path, endpoint: str) -> None:
        self._command = command
        self._directory = directory
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TF_VAR_", "PROFILE_"))
        }
        self._environ = {
            **kept,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "administrator",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
        }

    @classmethod
    def in_copy(cls, directory: Path, endpoint: str, configuration: Path = INFRA) -> Terraform:
        """A new copy, ready to plan; where that is not to be had, the test does not run."""
        command = os.environ.get("TERRAFORM", "")
        if not command:
            missing("TERRAFORM is not set: name the command, whose init may fetch the provider hashicorp/aws")
        if shutil.which(command) is None:
            missing(f"TERRAFORM={command} is no command here")
        shutil.copytree(configuration, directory, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        (directory / "moto.tf").write_text(_PROVIDER)
        terraform = cls(command, directory, endpoint)
        try:
            terraform._run("init", "-backend=false", "-input=false")
        except RefusedError as error:
            missing(f"terraform init has no provider: {error}")
        try:
            terraform._run("validate")
        except RefusedError as error:
            # A stand-in for the provider knows some of its resources only.
            if "not support resource type" not in str(error):
                raise
            missing(f"this provider does not know all that {configuration.name}/ has")
        return terraform

    def plan(self, environment_file: str, /, **variables: object) -> Plan:
        """A plan with that environment's file, and whatever else is given. Raises RefusedError."""
        return self._plan(f"-var-file={environment_file}.tfvars", *_arguments({**GIVEN, **variables}))

    def plan_of(self, **variables: object) -> Plan:
        """A plan with these variables alone. Raises RefusedError."""
        return self._plan(*_arguments(variables))

    def _plan(self, *arguments: str) -> Plan:
        self._run("plan", "-input=false", "-out=plan", *arguments)
        return Plan(json.loads(self._run("show", "-json", "plan")))

    def apply(self) -> dict[str, Any]:
        """Does what was planned last; the outputs."""
        self._run("apply", "-input=false", "plan")
        outputs = json.loads(self._run("output", "-json"))
        return {name: output["value"] for name, output in outputs.items()}

    def plan_destroy(self, environment_file: str, /, **variables: object) -> str:
        """A plan to destroy everything. Raises RefusedError."""
        return self._run(
            "plan",
            "-input=false",
            "-destroy",
            f"-var-file={environment_file}.tfvars",
            *_arguments({**GIVEN, **variables}),
        )

    def _run(self, *arguments: str) -> str:
        ended = subprocess.run(
            [self._command, *arguments, *(() if arguments[0] in ("show", "output") else ("-no-color",))],
            cwd=self._directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if ended.returncode:
            # Terraform breaks lines and draws a frame around them.
            raise RefusedError(" ".join(ended.stderr.replace("│", " ").replace("╷", " ").replace("╵", " ").split()))
        return ended.stdout


def _arguments(variables: Mapping[str, object]) -> list[str]:
    return [f"-var={name}={_literal(value)}" for name, value in variables.items()]


def _literal(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _resources(module: dict[str, Any]) -> list[dict[str, Any]]:
    own: list[dict[str, Any]] = list(module.get("resources", []))
    return own + [each for child in module.get("child_modules", []) for each in _resources(child)]


def missing(reason: str) -> NoReturn:
    """Ends the test: it does not run here, or fails where everything has to run."""
    if os.environ.get("REQUIRE_TERRAFORM") == "1":
        pytest.fail(f"{reason} (REQUIRE_TERRAFORM=1)")
    pytest.skip(reason)
