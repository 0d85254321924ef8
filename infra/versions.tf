# No provider block: region and credentials come from the environment, and the folder can be a module of another one.
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
