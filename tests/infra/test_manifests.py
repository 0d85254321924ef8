"""What starts the sample app elsewhere: the Kubernetes manifest, the compose file, the image. It understands them."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import uvicorn
import yaml
from infra_kit.terraform import INFRA

from profiling_middleware import Settings
from profiling_middleware.units import parse_size
from sample_app.__main__ import main

ROOT = INFRA.parent
MANIFEST = INFRA / "kubernetes" / "sample-app.yaml"
SAMPLE_APP = ["python", "-m", "sample_app"]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How uvicorn would have been run."""
    monkeypatch.setenv("PROFILE_ENABLED", "")
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: calls.append(options))
    return calls


def test_kubernetes_starts_it_profiled(served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    container = _deployment()["spec"]["template"]["spec"]["containers"][0]
    _set(monkeypatch, {pair["name"]: str(pair.get("value", "a-token-of-the-secret")) for pair in container["env"]})
    assert container["command"] == SAMPLE_APP

    assert main(container["args"]) == 0

    settings = Settings.from_env()
    assert (settings.enabled, settings.bucket_name, settings.environment) == (True, "stl-debugging-prod", "prod")
    assert settings.token is not None
    assert served[0]["host"] == "0.0.0.0"
    assert served[0]["port"] == container["ports"][0]["containerPort"]


def test_kubernetes_keeps_the_token_in_a_secret() -> None:
    (container,) = _deployment()["spec"]["template"]["spec"]["containers"]
    environ = {pair["name"]: pair for pair in container["env"]}

    assert "secretKeyRef" in environ["PROFILE_TOKEN"]["valueFrom"]


def test_kubernetes_has_room_for_what_waits_and_for_a_trace_that_is_taken() -> None:
    pod = _deployment()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environ = {pair["name"]: pair.get("value", "") for pair in container["env"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    sizes = {volume["name"]: _bytes(volume["emptyDir"]["sizeLimit"]) for volume in pod["volumes"]}
    resources = container["resources"]

    spool = sizes[mounts[environ["PROFILE_SPOOL_DIR"]]]

    assert spool == 2 * parse_size(environ["PROFILE_SPOOL_MAX_BYTES"])
    assert _bytes(resources["requests"]["ephemeral-storage"]) >= spool
    # The log is written there as well: the kubelet keeps 50 MiB of it.
    assert _bytes(resources["limits"]["ephemeral-storage"]) >= sum(sizes.values()) + 50 * 2**20


def test_kubernetes_leaves_private_what_a_volume_brings_along() -> None:
    security = _deployment()["spec"]["template"]["spec"]["securityContext"]

    assert security["fsGroupChangePolicy"] == "OnRootMismatch"


def test_kubernetes_runs_it_as_the_role_that_uploads() -> None:
    account = _document("ServiceAccount")
    pod = _deployment()["spec"]["template"]["spec"]

    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert re.fullmatch(
        r"arn:aws:iam::\d{12}:role/\S+", account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    )
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["terminationGracePeriodSeconds"] >= 10


def test_compose_starts_it_profiled(served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    app = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["app"]
    _set(monkeypatch, app["environment"])
    assert app["command"][:3] == SAMPLE_APP

    assert main(app["command"][3:]) == 0

    settings = Settings.from_env()
    assert (settings.enabled, settings.bucket_name) == (True, "stl-debugging-dev")


def test_the_image_starts_it_unprofiled(served: list[dict[str, Any]]) -> None:
    (command,) = re.findall(r"^CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    words = yaml.safe_load(command)
    assert words[:3] == SAMPLE_APP

    assert main(words[3:]) == 0

    assert not Settings.from_env().enabled


def test_all_run_the_image_as_the_same_user_with_the_same_spool() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):\1$", dockerfile, re.MULTILINE)
    (volumes,) = re.findall(r"^VOLUME (\[.*\])$", dockerfile, re.MULTILINE)
    pod = _deployment()["spec"]["template"]["spec"]

    assert user != "0"
    assert {pod["securityContext"][name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}
    assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} == set(yaml.safe_load(volumes))
    assert re.search(r'"/var/spool/profiling"', (INFRA / "variables.tf").read_text())


def test_what_the_project_needs_is_pinned_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["project"]["dependencies"], *_lines("requirements.in")]
    pinned = "\n".join(_lines("requirements.txt"))

    assert {_name(line) for line in needed} <= set(_pins(pinned))
    assert _pins("\n".join(_lines("build-requirements.txt"))).keys() == {
        _name(line) for line in project["build-system"]["requires"]
    }
    for version, hashes in _pins(pinned).values():
        assert version
        assert hashes > 0


def _document(kind: str) -> dict[str, Any]:
    (found,) = [each for each in yaml.safe_load_all(MANIFEST.read_text()) if each["kind"] == kind]
    assert isinstance(found, dict)
    return found


def _deployment() -> dict[str, Any]:
    return _document("Deployment")


def _bytes(quantity: str) -> int:
    """Of Kubernetes' 64Mi, which is 64MiB everywhere else."""
    return parse_size(f"{quantity}B")


def _set(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


def _lines(file: str) -> list[str]:
    lines = (ROOT / "sample_app" / file).read_text().splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return match[0].lower().replace("_", "-")


def _pins(text: str) -> dict[str, tuple[str, int]]:
    """By name: the version, and how many files may have it."""
    blocks = re.split(r"\n(?=\S)", text)
    return {
        _name(block): (block.partition("==")[2].split()[0].rstrip("\\"), block.count("--hash=sha256:"))
        for block in blocks
    }
