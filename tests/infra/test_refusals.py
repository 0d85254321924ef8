"""Variables that cannot be used are refused while it is planned, and the message says what would be right."""

from __future__ import annotations

import re

import pytest
from infra_kit.terraform import INFRA, RefusedError, Terraform

WRONG: list[tuple[dict[str, object], str]] = [
    ({"environment": "qa"}, 'environment = "qa" is none of this infrastructure: use dev, staging or prod.'),
    (
        {"profile_interval": "1m"},
        'profile_interval = "1m" is shorter than profile_duration (2m): windows may not overlap, so use 2m or more',
    ),
    ({"profile_duration": "10m"}, 'profile_interval = "5m" is shorter than profile_duration (10m)'),
    ({"profile_interval": "5"}, 'profile_interval = "5" is not a duration: write a number with a unit, such as 90s'),
    ({"expiry_days": 0}, "expiry_days = 0 keeps no profile: use a whole number of days, 1 or more."),
    ({"service_name": "a*"}, 'service_name = "a*" cannot be part of a key'),
    ({"profile_types": ["heap"]}, 'profile_types = "heap" is not what can be captured'),
    ({"stop_timeout": 1}, "stop_timeout = 1 is out of range"),
    ({"port": 80}, "port = 80 is none that the container's user may open: use 1024 to 65535."),
    ({"cpu": 256, "memory": 4096}, "memory = 4096 does not go with cpu = 256 on Fargate"),
    ({"image": "sample-app"}, "image must name what was built from the Dockerfile, with a tag or a digest"),
]


@pytest.mark.parametrize(("variables", "message"), WRONG, ids=[",".join(variables) for variables, _ in WRONG])
def test_what_cannot_be_used_is_refused(variables: dict[str, object], message: str, terraform: Terraform) -> None:
    with pytest.raises(RefusedError) as refused:
        terraform.plan("prod", **variables)

    assert message in str(refused.value)


def test_a_token_in_plain_text_is_refused_and_not_repeated(terraform: Terraform) -> None:
    with pytest.raises(RefusedError) as refused:
        terraform.plan("prod", token_arn="correct-horse-battery")

    assert "token_arn is no ARN of a Secrets Manager secret or SSM parameter" in str(refused.value)
    assert "correct-horse-battery" not in str(refused.value)


def test_no_message_can_show_a_token() -> None:
    """Terraform repeats what is not sensitive, and whatever a variable's own validation has looked at."""
    variables = [
        variable
        for file in INFRA.rglob("*.tf")
        for variable in re.findall(r'^variable "token_arn" \{\n.*?^\}', file.read_text(), re.MULTILINE | re.DOTALL)
    ]

    assert len(variables) == 2
    assert all(re.search(r"^  sensitive +=", variable, re.MULTILINE) for variable in variables)
    assert not any("validation {" in variable for variable in variables)
