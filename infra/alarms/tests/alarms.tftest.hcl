# What raises an alarm, what ends it, who hears of it; and what is refused.

mock_provider "aws" {}

variables {
  environment    = "prod"
  service_name   = "checkout"
  log_group_name = "/ecs/checkout"
  topic_arns     = ["arn:aws:sns:eu-west-1:123456789012:on-call"]
}

run "one_for_each_trouble" {
  command = plan

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

run "names_tell_service_and_environment" {
  command = plan

  assert {
    condition = toset(output.alarm_names) == toset([
      for trouble in ["not-stored", "lost", "no-spool", "stays-off"] : "checkout-prod-profiles-${trouble}"
    ])
    error_message = "An alarm's name says whose it is."
  }
  assert {
    condition = alltrue([
      for name, alarm in aws_cloudwatch_metric_alarm.failures :
      alarm.metric_name == one(aws_cloudwatch_log_metric_filter.failures[name].metric_transformation).name
    ])
    error_message = "Each alarm looks at the metric of its own filter."
  }
}

run "nobody_need_hear_of_them" {
  command = plan

  variables {
    topic_arns = []
  }

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.failures : length(alarm.alarm_actions) == 0])
    error_message = "Without topics there are alarms to look at."
  }
}

run "a_name_that_is_none" {
  command = plan

  variables {
    service_name = "a/b"
  }

  expect_failures = [var.service_name]
}

run "an_environment_that_is_none" {
  command = plan

  variables {
    environment = "Prod"
  }

  expect_failures = [var.environment]
}

run "a_log_that_is_none" {
  command = plan

  variables {
    log_group_name = ""
  }

  expect_failures = [var.log_group_name]
}

run "a_topic_by_its_name" {
  command = plan

  variables {
    topic_arns = ["on-call"]
  }

  expect_failures = [var.topic_arns]
}
