# The bucket of this environment's profiles. Everything in it goes after expiry_days.

locals {
  # Known before anything is applied, so that policies can be read in a plan.
  bucket_name = "${var.bucket_prefix}-${var.environment}"
  partition   = split(":", data.aws_caller_identity.current.arn)[1] # aws, aws-cn, aws-us-gov
  bucket_arn  = "arn:${local.partition}:s3:::${local.bucket_name}"
  tags        = merge(var.tags, { environment = var.environment })
}

resource "aws_s3_bucket" "debugging" {
  # checkov:skip=CKV_AWS_18:access logs would need a second bucket; who reads profiles is in CloudTrail's data events
  # checkov:skip=CKV_AWS_21:nothing is ever replaced (If-None-Match), and old versions would outlive the 30 days
  # checkov:skip=CKV_AWS_144:profiles are for today's incident; a copy in another region is not worth its price
  # checkov:skip=CKV_AWS_145:a KMS key of one's own asks kms:GenerateDataKey of every task; s3:PutObject is to be all
  # checkov:skip=CKV2_AWS_62:nobody waits for a profile to arrive
  bucket        = local.bucket_name
  force_destroy = var.force_destroy
  tags          = local.tags

  lifecycle {
    # S3 refuses to delete a bucket that holds something, but its rules would be gone by then. So a destroy, or another
    # name, fails while it is planned. To delete the bucket, take this out.
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "debugging" {
  bucket = aws_s3_bucket.debugging.id

  rule {
    id     = "expire-old-profiles"
    status = "Enabled"

    filter {
      prefix = "profiles/"
    }

    expiration {
      days = var.expiry_days
    }
  }

  rule {
    id     = "abort-incomplete-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_s3_bucket_public_access_block" "debugging" {
  bucket                  = aws_s3_bucket.debugging.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "debugging" {
  bucket = aws_s3_bucket.debugging.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "debugging" {
  bucket = aws_s3_bucket.debugging.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_policy" "debugging" {
  bucket = aws_s3_bucket.debugging.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyOverTLS"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [local.bucket_arn, "${local.bucket_arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  # S3 answers two changes of a bucket's access at once with a conflict.
  depends_on = [aws_s3_bucket_public_access_block.debugging, aws_s3_bucket_ownership_controls.debugging]
}
