# What a profiled task may do: put objects below its own prefix, nothing else.

locals {
  profiled_role_name = var.run_sample_app ? aws_iam_role.task[0].name : try(var.existing_service.task_role_name, null)
}

resource "aws_iam_role" "task" {
  count = var.run_sample_app ? 1 : 0

  name = "${var.service_name}-${var.environment}-task"
  tags = local.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

# s3:PutObject under profiles/{service}/* is in modules/profiled_service/iam.tf: services of other configurations use it too.
module "profiling" {
  source = "./modules/profiled_service"
  count  = var.run_sample_app || var.existing_service != null ? 1 : 0

  environment      = var.environment
  service_name     = var.service_name
  bucket           = local.bucket_name
  task_role_name   = local.profiled_role_name
  enabled          = var.profiling_enabled
  profile_interval = var.profile_interval
  profile_duration = var.profile_duration
  profile_types    = var.profile_types
  spool_directory  = var.spool_directory
  token_arn        = var.token_arn
}
