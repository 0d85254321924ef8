# What the service's container is told.

locals {
  token_arn = nonsensitive(var.token_arn) # the output that has it is there only if it is an ARN

  settings = {
    PROFILE_ENVIRONMENT     = var.environment
    PROFILE_SERVICE_NAME    = var.service_name
    PROFILE_S3_BUCKET       = var.bucket
    PROFILE_S3_BUCKET_OWNER = coalesce(var.bucket_owner, data.aws_caller_identity.current.account_id)
    PROFILE_INTERVAL        = var.profile_interval
    PROFILE_DURATION        = var.profile_duration
    PROFILE_TYPES           = join(",", var.profile_types)
    PROFILE_SPOOL_DIR       = var.spool_directory
    PROFILE_SPOOL_MAX_BYTES = "${var.spool_mib}MiB"
  }
}
