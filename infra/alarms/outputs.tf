output "alarm_names" {
  description = "What the alarms are called."
  value       = [for alarm in aws_cloudwatch_metric_alarm.failures : alarm.alarm_name]
}
