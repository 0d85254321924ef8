"""alarms/ and s3_endpoint/, which have a state of their own: what moto has of them once they are applied."""

from __future__ import annotations

from pathlib import Path

import pytest
from infra_kit.terraform import INFRA, Terraform
from integration_kit.moto import Moto

pytestmark = [pytest.mark.server]


def test_failures_in_the_log_raise_an_alarm(moto: Moto, tmp_path: Path) -> None:
    terraform = Terraform.in_copy(tmp_path / "alarms", moto.endpoint, INFRA / "alarms")
    moto.client("logs").create_log_group(logGroupName="/ecs/sample-app-prod")

    terraform.plan_of(environment="prod", service_name="sample-app", log_group_name="/ecs/sample-app-prod")
    outputs = terraform.apply()

    filters = moto.client("logs").describe_metric_filters(logGroupName="/ecs/sample-app-prod")["metricFilters"]
    alarms = moto.client("cloudwatch").describe_alarms()["MetricAlarms"]
    counted = {
        (metric["metricNamespace"], metric["metricName"])
        for each in filters
        for metric in each["metricTransformations"]
    }
    assert len(counted) == 4
    assert {alarm["AlarmName"] for alarm in alarms} == set(outputs["alarm_names"])
    assert {(alarm["Namespace"], alarm["MetricName"]) for alarm in alarms} == counted
    assert {(alarm["Threshold"], alarm["ComparisonOperator"]) for alarm in alarms} == {
        (1.0, "GreaterThanOrEqualToThreshold")
    }
    assert {(alarm["DatapointsToAlarm"], alarm["EvaluationPeriods"]) for alarm in alarms} == {(3, 5), (1, 12)}


def test_the_way_to_s3_is_free(moto: Moto, tmp_path: Path) -> None:
    terraform = Terraform.in_copy(tmp_path / "s3_endpoint", moto.endpoint, INFRA / "s3_endpoint")
    vpc = moto.client("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    route_table = moto.client("ec2").create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]

    terraform.plan_of(vpc_id=vpc, route_table_ids=[route_table])
    terraform.apply()

    (endpoint,) = moto.client("ec2").describe_vpc_endpoints()["VpcEndpoints"]
    assert (endpoint["VpcEndpointType"], endpoint["ServiceName"]) == ("Gateway", "com.amazonaws.us-east-1.s3")
    assert endpoint["RouteTableIds"] == [route_table]
