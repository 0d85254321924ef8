# The free way from a VPC to S3, once for each VPC. A configuration of its own, or a module of another.
terraform {
  required_version = ">= 1.9.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0.0, < 7.0.0"
    }
  }
}

data "aws_region" "current" {}
