"""The container's command and variables, as planned, start the sample app; it uploads as the role that was applied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from infra_kit.roles import assume, enforced
from infra_kit.terraform import Terraform
from integration_kit.http import fetch
from integration_kit.moto import Moto
from integration_kit.pprof import read_pprof
from integration_kit.servers import Servers, free_port

pytestmark = [pytest.mark.server, pytest.mark.s3]

ROOT = Path(__file__).parents[2]
TOKEN = "correct-horse-battery"


def test_the_container_starts_and_uploads(terraform: Terraform, moto: Moto, servers: Servers, tmp_path: Path) -> None:
    secret = moto.client("secretsmanager").create_secret(Name="profiling-token", SecretString=TOKEN)
    # The only two variables of its own: a port and a folder that are free on this machine.
    port, spool = free_port(), tmp_path / "spool"
    plan = terraform.plan("prod", port=port, spool_directory=str(spool), token_arn=secret["ARN"])
    outputs = terraform.apply()
    moto.client("s3").delete_bucket_policy(Bucket=outputs["bucket"])  # see test_applied.py
    container = plan.container
    # What ECS does: the variables, the secrets, the credentials of the task role. Whether the execution role may read
    # the secret is the matter of infra/tests, since moto looks at resources of S3 only.
    environ = {pair["name"]: pair["value"] for pair in container["environment"]}
    for each in container["secrets"]:
        value = moto.client("secretsmanager").get_secret_value(SecretId=each["valueFrom"])
        environ[each["name"]] = value["SecretString"]
    of_ecs = {**assume(moto, outputs["task_role_arn"]), "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_S3": moto.endpoint}
    # What the image has: Python on PATH, and the sample app where it is started.
    image = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    with enforced(moto):
        service = servers.start(container["command"], {**environ, **of_ecs, **image})

        service.wait_for_log("profiling: .* every 5m for 2m as service sample-app, .* to s3://stl-debugging-prod")
        service.wait_for_log(f"Uvicorn running on http://0.0.0.0:{port}")
        url = f"http://127.0.0.1:{port}"
        assert fetch(f"{url}/hot").status == 200
        kind, *health = container["healthCheck"]["command"]
        assert (kind, subprocess.run(health, env={**environ, **image}, timeout=30).returncode) == ("CMD", 0)
        refused = fetch(f"{url}/debug/pprof/cpu?seconds=1")
        answer = fetch(f"{url}/debug/pprof/cpu?seconds=1", headers={"Authorization": f"Bearer {TOKEN}"})
        service.wait_for_log(r"stored kind=cpu key=\S+")
        assert service.terminate() < container["stopTimeout"]

    assert (refused.status, answer.status) == (401, 200)
    assert service.lines("NOT stored") == service.lines("LOST") == []
    s3 = moto.client("s3")
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=outputs["bucket"])["Contents"]]
    assert answer.headers["X-Profile-Key"] in keys
    windows = [key for key in keys if key != answer.headers["X-Profile-Key"]]
    assert {key.split("/")[2] for key in windows} == {"cpu", "block", "mutex", "trace"}
    for key in windows:
        assert key.startswith("profiles/sample-app/")
        if not key.endswith(".trace.gz"):
            assert read_pprof(s3.get_object(Bucket=outputs["bucket"], Key=key)["Body"].read()).partial == "SIGTERM"
