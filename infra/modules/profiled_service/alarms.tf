# Uploads that fail, and what waits for them, by what the service's log says of them.

locals {
  # The words of profiling_middleware/uploads.py and waiting/backlog.py; tests/infra/test_log_patterns.py holds these
  # against their lines.
  failures = {
    not-stored = {
      pattern     = "\"profiling: NOT stored\""
      periods     = 3 # It is tried again, after 5 minutes at most: one failure is nobody's business.
      said_once   = false
      description = "Profiles of ${var.service_name} do not reach s3://${var.bucket}, and wait; the log says what would mend it (profiling: NOT stored)"
    }
    lost = {
      pattern     = "\"profiling: LOST\""
      periods     = 1
      said_once   = false
      description = "Profiles of ${var.service_name} are lost: too many waited, or they waited in memory and the service stopped while s3://${var.bucket} was away; the log says which (profiling: LOST)"
    }
    no-spool = {
      pattern     = "\"profiling: the spool cannot be used\""
      periods     = 1
      said_once   = true # by each process, while it lasts: that nobody says it again does not mean that it is over
      description = "Profiles of ${var.service_name} wait in memory, where there is room for little and a stop loses them: ${var.spool_directory} cannot be written; the log says why, once for each process (profiling: the spool cannot be used)"
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "failures" {
  for_each = var.log_group_name == null ? {} : local.failures

  name           = "${var.service_name}-${var.environment}-profiles-${each.key}"
  log_group_name = var.log_group_name
  pattern        = each.value.pattern

  metric_transformation {
    name          = "${var.service_name}-${var.environment}-profiles-${each.key}"
    namespace     = "ProfilingMiddleware"
    value         = "1"
    default_value = "0"
    unit          = "Count"
  }
}

resource "aws_cloudwatch_metric_alarm" "failures" {
  for_each = aws_cloudwatch_log_metric_filter.failures

  alarm_name          = each.value.name
  alarm_description   = local.failures[each.key].description
  namespace           = "ProfilingMiddleware"
  metric_name         = each.value.name
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = local.failures[each.key].periods
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  treat_missing_data  = "notBreaching" # A service without load writes no lines.
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = local.failures[each.key].said_once ? [] : var.alarm_topic_arns
  tags                = var.tags
}
