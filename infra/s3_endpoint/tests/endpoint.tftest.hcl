# A way to S3 that costs nothing, in the routes that are named.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = {
      region = "eu-west-1"
    }
  }
}

variables {
  vpc_id          = "vpc-0a1b2c3d"
  route_table_ids = ["rtb-1", "rtb-2"]
}

run "a_gateway" {
  command = plan

  assert {
    condition     = aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway" && aws_vpc_endpoint.s3.service_name == "com.amazonaws.eu-west-1.s3"
    error_message = "It is a gateway endpoint, which is free."
  }
  assert {
    condition     = aws_vpc_endpoint.s3.vpc_id == "vpc-0a1b2c3d" && aws_vpc_endpoint.s3.route_table_ids == toset(["rtb-1", "rtb-2"])
    error_message = "It is in the routes of that VPC."
  }
}

run "no_routes" {
  command = plan

  variables {
    route_table_ids = []
  }

  expect_failures = [var.route_table_ids]
}

run "no_vpc" {
  command = plan

  variables {
    vpc_id = "main"
  }

  expect_failures = [var.vpc_id]
}
