resource "aws_cloudwatch_log_group" "this" {
  # checkov:skip=CKV_AWS_158:encrypted with CloudWatch's own key; a key of one's own is the account's decision
  # checkov:skip=CKV_AWS_338:a sample app's log is of no use after a year
  name              = "/ecs/${var.name}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}
