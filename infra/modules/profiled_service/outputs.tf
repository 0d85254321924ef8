output "container" {
  description = <<-EOT
    For the container's definition: `environment` with its switch (PROFILE_ENABLED), or for a service with the flag
    `arguments` and `settings`; `secrets`; `spool`, a volume to be mounted; `memory_mib` and `cpu_units`, what a process needs more.
  EOT
  value = {
    arguments   = var.enabled ? ["--enable-profiling"] : []
    settings    = [for name in sort(keys(local.settings)) : { name = name, value = local.settings[name] }]
    environment = [for name, value in merge(local.settings, { PROFILE_ENABLED = tostring(var.enabled) }) : { name = name, value = value }]
    secrets     = local.token_arn == null ? [] : [{ name = "PROFILE_TOKEN", valueFrom = local.token_arn }]
    spool       = { directory = var.spool_directory, mib = var.spool_mib }
    # 16 measured with the sample app, boto3 40, captures that wait 16, the trace 8, and room; per process of the service.
    memory_mib = 128
    # Of 1024: 3.9 % of a core, for a process that keeps one busy with all kinds on (docs/performance.md).
    cpu_units = 40
  }

  precondition {
    # Not where the variable is declared: a validation there repeats what it has looked at, sensitive or not.
    condition     = var.token_arn == null || can(regex("^arn:[a-z-]+:(secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:|ssm:[a-z0-9-]+:[0-9]{12}:parameter/).+$", var.token_arn))
    error_message = "token_arn is no ARN of a Secrets Manager secret or SSM parameter: put the token there, and its ARN here."
  }
}

output "uploading_role" {
  description = "The role that may upload."
  value       = aws_iam_role_policy.upload.role
}

output "upload_policy" {
  description = "What it may do: JSON."
  value       = aws_iam_role_policy.upload.policy
}
