# The sample app as an ECS Fargate service.

module "sample_app" {
  source = "./modules/sample_app"
  count  = var.run_sample_app ? 1 : 0

  name               = "${var.service_name}-${var.environment}"
  image              = var.image
  task_role_arn      = aws_iam_role.task[0].arn
  profiling          = module.profiling[0].container
  token_key_arn      = var.token_key_arn
  subnet_ids         = var.subnet_ids
  security_group_ids = var.security_group_ids
  assign_public_ip   = var.assign_public_ip
  port               = var.port
  desired_count      = var.desired_count
  cpu                = var.cpu
  memory             = var.memory
  stop_timeout       = var.stop_timeout
  log_retention_days = var.log_retention_days
  tags               = merge(local.tags, { service = var.service_name })
}
