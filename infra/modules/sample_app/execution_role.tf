# What ECS itself may do to start a task: pull the image, write the log, read the token.

resource "aws_iam_role" "execution" {
  name = "${var.name}-execution"
  tags = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

locals {
  partition = split(":", data.aws_caller_identity.current.arn)[1] # aws, aws-cn, aws-us-gov

  token_arns = [
    # What stands behind a secret's name says which of its values, and is no part of the resource.
    for secret in var.profiling.secrets : join(":", slice(split(":", secret.valueFrom), 0, min(7, length(split(":", secret.valueFrom)))))
  ]
}

resource "aws_iam_role_policy" "token" {
  count = length(local.token_arns) > 0 ? 1 : 0

  name = "read-profiling-token"
  role = aws_iam_role.execution.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue", "ssm:GetParameters"]
        Resource = local.token_arns
      }],
      var.token_key_arn == null ? [] : [{
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = [var.token_key_arn]
      }],
    )
  })
}
