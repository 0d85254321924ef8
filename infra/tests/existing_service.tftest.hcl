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
    existing_service = {
      task_role_name = "checkout-task"
      log_group_name = "/ecs/checkout"
    }
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
    environment      = "prod"
    enabled          = false
    service_name     = "checkout"
    bucket           = "stl-debugging-prod"
    bucket_owner     = "210987654321"
    task_role_name   = "checkout-task"
    log_group_name   = "/ecs/checkout"
    token_arn        = "arn:aws:ssm:eu-west-1:123456789012:parameter/token"
    alarm_topic_arns = ["arn:aws:sns:eu-west-1:123456789012:on-call"]
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
  assert {
    condition     = toset([for alarm in aws_cloudwatch_metric_alarm.failures : alarm.threshold]) == toset([1]) && length(aws_cloudwatch_metric_alarm.failures) == 4
    error_message = "Uploads that fail, captures that are lost, a spool that cannot be used and a service that is not profiled have an alarm each."
  }
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.failures : alarm.alarm_actions == toset(["arn:aws:sns:eu-west-1:123456789012:on-call"])])
    error_message = "Each of them is heard of."
  }
  assert {
    condition = { for name, alarm in aws_cloudwatch_metric_alarm.failures : name => length(alarm.ok_actions) } == {
      not-stored = 1
      lost       = 1
      no-spool   = 0
      stays-off  = 0
    }
    error_message = "What is said once in each process is not called over when nobody says it again."
  }
  assert {
    condition = {
      for name, alarm in aws_cloudwatch_metric_alarm.failures : name => [alarm.datapoints_to_alarm, alarm.evaluation_periods]
      } == {
      not-stored = [3, 5]
      lost       = [1, 12]
      no-spool   = [1, 12]
      stays-off  = [1, 12]
    }
    error_message = "One upload that fails raises no alarm, and one period without a line ends none."
  }
  assert {
    condition     = toset([for alarm in aws_cloudwatch_metric_alarm.failures : alarm.treat_missing_data]) == toset(["notBreaching"])
    error_message = "A service that writes no lines has no trouble."
  }
  assert {
    condition     = alltrue([for filter in aws_cloudwatch_log_metric_filter.failures : filter.log_group_name == "/ecs/checkout"])
    error_message = "They come from the service's log."
  }
}

run "without_a_log_there_are_no_alarms" {
  command = plan

  module {
    source = "./modules/profiled_service"
  }

  variables {
    environment    = "prod"
    enabled        = true
    service_name   = "checkout"
    bucket         = "stl-debugging-prod"
    task_role_name = "checkout-task"
  }

  assert {
    condition     = length(aws_cloudwatch_log_metric_filter.failures) == 0 && length(aws_cloudwatch_metric_alarm.failures) == 0
    error_message = "No log, no alarm."
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
