output "cluster" {
  description = "Name of the cluster."
  value       = aws_ecs_cluster.this.name
}

output "log_group_name" {
  description = "Where the app's log goes."
  value       = aws_cloudwatch_log_group.this.name
}

output "container_definitions" {
  description = "What ECS starts: JSON."
  value       = aws_ecs_task_definition.this.container_definitions
}

output "token_policy" {
  description = "What ECS may do to read the token: JSON, or nothing without a token."
  value       = one(aws_iam_role_policy.token[*].policy)
}
