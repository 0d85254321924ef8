# The profiling parts alone, for a service that exists already: with this bucket, or with one of another configuration.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "with_the_bucket" {
  command = plan

  variables {
    environment       = "prod"
    profiling_enabled = true
    service_name      = "checkout"
    run_sample_app    = false
    existing_service  = { task_role_name = "checkout-task" }
  }

  assert {
    condition     = length(module.sample_app) == 0 && length(aws_iam_role.task) == 0
    error_message = "Nothing of the sample app is there."
  }
  assert {
    condition     = module.profiling[0].uploading_role == "checkout-task"
    error_message = "The service's own role may upload."
  }
  assert {
    condition     = { for pair in output.container.environment : pair.name => pair.value }["PROFILE_ENABLED"] == "true"
    error_message = "A service without the flag is switched on by a variable."
  }
}

run "with_a_bucket_that_is_there" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    environment    = "prod"
    enabled        = false
    service_name   = "checkout"
    bucket         = "stl-debugging-prod"
    bucket_owner   = "210987654321"
    task_role_name = "checkout-task"
    token_arn      = "arn:aws:ssm:eu-west-1:123456789012:parameter/token"
  }

  assert {
    condition     = one(output.container.secrets[*].valueFrom) == "arn:aws:ssm:eu-west-1:123456789012:parameter/token"
    error_message = "The container gets the token from where it lies."
  }
  assert {
    condition     = aws_iam_role_policy.upload.role == "checkout-task"
    error_message = "The service's own role may upload."
  }
  assert {
    condition = alltrue([
      for name, value in { PROFILE_ENABLED = "false", PROFILE_S3_BUCKET_OWNER = "210987654321", PROFILE_SERVICE_NAME = "checkout" } :
      contains(output.container.environment, { name = name, value = value })
    ])
    error_message = "The container is told whose bucket it is, and that profiling is off."
  }
  assert {
    condition     = output.container.memory_mib == 128 && output.container.cpu_units == 40 && output.container.spool.mib == 64
    error_message = "The container is told what to reserve for the profiler."
  }
  assert {
    condition     = length(output.container.arguments) == 0
    error_message = "Off is off."
  }
}

run "the_longest_name_of_a_service" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    environment    = "staging"
    bucket         = "stl-debugging-staging"
    enabled        = true
    task_role_name = "watcher-task"
    service_name   = "ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss"
  }

  assert {
    condition     = length(aws_iam_role_policy.upload.name) == 128
    error_message = "IAM takes no longer name of a policy."
  }
}
