# For people who debug: list and read, no more. Profiles show paths, names of functions and command lines.

resource "aws_iam_policy" "read_profiles" {
  name        = "${local.bucket_name}-read-profiles"
  description = "List and read the profiles in ${local.bucket_name}"
  tags        = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "List"
        Effect    = "Allow"
        Action    = "s3:ListBucket"
        Resource  = local.bucket_arn
        Condition = { StringLike = { "s3:prefix" = "profiles/*" } }
      },
      {
        Sid      = "Read"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = "${local.bucket_arn}/profiles/*"
      },
    ]
  })
}

resource "aws_iam_role_policy_attachment" "readers" {
  for_each = var.reader_role_names

  role       = each.value
  policy_arn = aws_iam_policy.read_profiles.arn
}
