# All that profiling needs. A put that must not replace anything (If-None-Match) asks for nothing more.

locals {
  partition = split(":", data.aws_caller_identity.current.arn)[1] # aws, aws-cn, aws-us-gov
}

resource "aws_iam_role_policy" "upload" {
  name = substr("upload-profiles-of-${var.service_name}", 0, 128) # IAM takes no longer ones
  role = var.task_role_name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "s3:PutObject"
      Resource = "arn:${local.partition}:s3:::${var.bucket}/profiles/${var.service_name}/*"
    }]
  })
}
