# The bucket: its name, what goes and when, and that nobody else gets in. Plans only, because prevent_destroy holds in tests too.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  environment       = "prod"
  profiling_enabled = true
  image             = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/sample-app:1"
  subnet_ids        = ["subnet-1"]
}

run "names_and_rules" {
  command = plan

  assert {
    condition     = aws_s3_bucket.debugging.bucket == "stl-debugging-prod" && output.bucket == "stl-debugging-prod"
    error_message = "The bucket is stl-debugging-{environment}."
  }
  assert {
    condition     = !aws_s3_bucket.debugging.force_destroy
    error_message = "A bucket that holds profiles is not deleted unless somebody says so."
  }
  assert {
    condition = length([
      for rule in aws_s3_bucket_lifecycle_configuration.debugging.rule : rule
      if rule.status == "Enabled" && try(rule.filter[0].prefix == "profiles/" && rule.expiration[0].days == 30, false)
    ]) == 1
    error_message = "One rule expires profiles/ after 30 days."
  }
  assert {
    condition = length([
      for rule in aws_s3_bucket_lifecycle_configuration.debugging.rule : rule
      if rule.id == "abort-incomplete-uploads" && rule.status == "Enabled" && try(rule.abort_incomplete_multipart_upload[0].days_after_initiation == 1, false)
    ]) == 1
    error_message = "One rule aborts uploads that were never completed."
  }
  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.debugging.block_public_acls,
      aws_s3_bucket_public_access_block.debugging.block_public_policy,
      aws_s3_bucket_public_access_block.debugging.ignore_public_acls,
      aws_s3_bucket_public_access_block.debugging.restrict_public_buckets,
    ])
    error_message = "All public access is blocked."
  }
  assert {
    condition     = aws_s3_bucket_ownership_controls.debugging.rule[0].object_ownership == "BucketOwnerEnforced"
    error_message = "Objects belong to the bucket's owner, and there are no ACLs."
  }
  assert {
    condition = one([
      for rule in aws_s3_bucket_server_side_encryption_configuration.debugging.rule :
      one(rule.apply_server_side_encryption_by_default).sse_algorithm
    ]) == "AES256"
    error_message = "Objects are encrypted at rest, without a key that tasks would need a permission for."
  }
}

run "only_over_tls" {
  command = plan

  assert {
    condition = jsondecode(aws_s3_bucket_policy.debugging.policy).Statement == [{
      Sid       = "OnlyOverTLS"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = ["arn:aws:s3:::stl-debugging-prod", "arn:aws:s3:::stl-debugging-prod/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
    error_message = "Everything that does not come over TLS is denied."
  }
}

run "another_prefix_and_another_time" {
  command = plan

  variables {
    bucket_prefix = "acme-profiles"
    expiry_days   = 7
    force_destroy = true
  }

  assert {
    condition     = aws_s3_bucket.debugging.bucket == "acme-profiles-prod" && aws_s3_bucket.debugging.force_destroy
    error_message = "The prefix is a variable, and whether it may be deleted with all it holds."
  }
  assert {
    condition     = contains([for rule in aws_s3_bucket_lifecycle_configuration.debugging.rule : try(rule.expiration[0].days, 0)], 7)
    error_message = "The time is a variable."
  }
}
