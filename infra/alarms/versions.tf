# What the log of one profiled service says of its uploads, as alarms. A configuration of its own, or a module of another.
terraform {
  required_version = ">= 1.9.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0.0, < 7.0.0"
    }
  }
}
