# One service's side of profiling: the permission to upload and what its container is told. The bucket is there already.
terraform {
  required_version = ">= 1.9.0" # validations that look at two variables

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0.0, < 7.0.0"
    }
  }
}

data "aws_caller_identity" "current" {}
