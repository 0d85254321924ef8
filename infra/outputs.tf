output "bucket" {
  description = "The bucket of the profiles."
  value       = aws_s3_bucket.debugging.bucket
}

output "read_policy_arn" {
  description = "The policy for people who debug, to be attached to their roles."
  value       = aws_iam_policy.read_profiles.arn
}

output "task_role_arn" {
  description = "The role of the sample app's tasks."
  value       = one(aws_iam_role.task[*].arn)
}

output "container" {
  description = "What the profiled service's container needs: arguments, environment, secrets, spool."
  value       = one(module.profiling[*].container)
}

output "cluster" {
  description = "The ECS cluster of the sample app."
  value       = one(module.sample_app[*].cluster)
}

output "log_group_name" {
  description = "The log group of the sample app, which alarms/ looks at."
  value       = one(module.sample_app[*].log_group_name)
}
