# Uploads that fail, what waits for them, and services that are not profiled, by what the service's log says of them.

locals {
  # The words of profiling_middleware/uploads.py, waiting/backlog.py and middleware/; tests/infra/test_log_patterns.py
  # holds these against their lines.
  #
  # An alarm is raised by a line in `raised_by` of the last `looks_at` periods of 5 minutes, and is over when there are fewer.
  # One failed upload is nobody's business: it is tried again. While S3 is away, tries come to lie up to 5 minutes and a
  # time-out apart, so that a period may have none: of five, three have one all the same. All else is a loss, or is said
  # once; said again within the hour (by the next process, or because of the next window) it is the same trouble.
  failures = {
    not-stored = {
      pattern     = "\"profiling: NOT stored\""
      raised_by   = 3
      looks_at    = 5
      said_once   = false
      description = "Profiles of ${var.service_name} do not reach their bucket, and wait; the log says what would mend it (profiling: NOT stored)"
    }
    lost = {
      pattern     = "\"profiling: LOST\""
      raised_by   = 1
      looks_at    = 12
      said_once   = false
      description = "Profiles of ${var.service_name} are lost: too many waited, or they waited in memory and the service stopped while S3 was away; the log says which (profiling: LOST)"
    }
    no-spool = {
      pattern     = "\"profiling: the spool cannot be used\""
      raised_by   = 1
      looks_at    = 12
      said_once   = true # by each process, while it lasts: that nobody says it again does not mean that it is over
      description = "Profiles of ${var.service_name} wait in memory, where there is room for little and a stop loses them: PROFILE_SPOOL_DIR cannot be written; the log says why, once for each process (profiling: the spool cannot be used)"
    }
    stays-off = {
      pattern     = "\"profiling: stays off\""
      raised_by   = 1
      looks_at    = 12
      said_once   = true
      description = "${var.service_name} is served, but not profiled; the log says why, once for each process (profiling: stays off)"
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "failures" {
  for_each = local.failures

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
  evaluation_periods  = local.failures[each.key].looks_at
  datapoints_to_alarm = local.failures[each.key].raised_by
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  treat_missing_data  = "notBreaching" # A service without load writes no lines, and one that is gone has no trouble.
  alarm_actions       = var.topic_arns
  ok_actions          = local.failures[each.key].said_once ? [] : var.topic_arns
  tags                = merge(var.tags, { environment = var.environment, service = var.service_name })
}
