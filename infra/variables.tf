# What an environment decides. dev.tfvars, staging.tfvars and prod.tfvars have the values.

variable "environment" {
  description = "Which of the environments this is; the bucket's name ends with it."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "environment = \"${var.environment}\" is none of this infrastructure: use dev, staging or prod."
  }
}

variable "service_name" {
  description = "Whose profiles these are: the {service} in profiles/{service}/."
  type        = string
  default     = "sample-app"
}

variable "tags" {
  description = "Tags of everything that can have some, besides environment and service."
  type        = map(string)
  default     = {}
}

# -- the bucket ----------------------------------------------------------------

variable "bucket_prefix" {
  description = "The bucket is {bucket_prefix}-{environment}. Bucket names are global: choose your own."
  type        = string
  default     = "stl-debugging"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,52}[a-z0-9]$", var.bucket_prefix)) && !strcontains(var.bucket_prefix, "..")
    error_message = "bucket_prefix = \"${var.bucket_prefix}\" cannot begin a bucket's name: use 3 to 54 of a-z, 0-9, '.', '-'."
  }
}

variable "expiry_days" {
  description = "After how many days a profile is deleted."
  type        = number
  default     = 30

  validation {
    condition     = var.expiry_days >= 1 && floor(var.expiry_days) == var.expiry_days
    error_message = "expiry_days = ${var.expiry_days} keeps no profile: use a whole number of days, 1 or more."
  }
}

variable "force_destroy" {
  description = "Lets a bucket that still holds profiles be deleted, once prevent_destroy is taken out of s3_profiling.tf as well."
  type        = bool
  default     = false
}

variable "reader_role_names" {
  description = "Roles of people who debug: they may list and read profiles."
  type        = set(string)
  default     = []
}

# -- profiling -----------------------------------------------------------------

variable "profiling_enabled" {
  description = "Whether the service profiles all the time (--enable-profiling). Off, captures on demand still work and are stored."
  type        = bool
}

variable "profile_interval" {
  description = "Window start to window start, a Go duration such as 5m."
  type        = string
  default     = "5m"
}

variable "profile_duration" {
  description = "Length of a window, a Go duration such as 2m."
  type        = string
  default     = "2m"
}

variable "profile_types" {
  description = "Which kinds a window captures."
  type        = list(string)
  default     = ["cpu", "block", "mutex", "trace"]
}

variable "token_arn" {
  description = "ARN of the Secrets Manager secret or SSM parameter with the token that opens /debug/pprof/. The token itself is nowhere in here."
  type        = string
  default     = null
  sensitive   = true # so that no message shows it: it may be the token itself, by mistake
}

variable "spool_directory" {
  description = "Where captures wait while S3 is away: a volume of the container. Whose it is the image says, by a VOLUME at this path."
  type        = string
  default     = "/var/spool/profiling"
}

variable "existing_service" {
  description = "A service that exists already and is to be profiled, instead of the sample app."
  type = object({
    task_role_name = string
  })
  default = null
}

# -- the sample app ------------------------------------------------------------

variable "run_sample_app" {
  description = "Whether the sample app runs in here, as an ECS Fargate service."
  type        = bool
  default     = true

  validation {
    condition     = !(var.run_sample_app && var.existing_service != null)
    error_message = "run_sample_app and existing_service are both given, and one service is profiled in here: set run_sample_app = false."
  }
}

variable "image" {
  description = "The image built from the Dockerfile, with a tag or better a digest."
  type        = string
  default     = null

  validation {
    condition     = !var.run_sample_app || can(regex("^.+(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})$", var.image))
    error_message = "image must name what was built from the Dockerfile, with a tag or a digest, such as 123456789012.dkr.ecr.eu-west-1.amazonaws.com/sample-app:1."
  }
}

variable "subnet_ids" {
  description = "Where the tasks of the sample app run."
  type        = list(string)
  default     = []

  validation {
    condition     = !var.run_sample_app || length(var.subnet_ids) > 0
    error_message = "subnet_ids is empty, and the tasks of the sample app must run somewhere: name subnets with a way to S3, or set run_sample_app = false."
  }
}

variable "security_group_ids" {
  description = "What the tasks may be reached by; they need port 443 outwards and are asked on var.port. Empty: the VPC's default group."
  type        = list(string)
  default     = []
}

variable "assign_public_ip" {
  description = "Whether tasks get a public address: only for subnets without NAT or endpoints for ECR, logs and secrets."
  type        = bool
  default     = false
}

variable "token_key_arn" {
  description = "ARN of the KMS key that token_arn is encrypted with, when it is not the account's own default key."
  type        = string
  default     = null
}

variable "port" {
  description = "Where the sample app listens."
  type        = number
  default     = 8000
}

variable "desired_count" {
  description = "How many tasks of the sample app run."
  type        = number
  default     = 1
}

variable "cpu" {
  description = "CPU units of a task; 1024 are one."
  type        = number
  default     = 512
}

variable "memory" {
  description = "Memory of a task in MiB: the application's, and 128 of the profiler's."
  type        = number
  default     = 1024
}

variable "stop_timeout" {
  description = "Seconds between SIGTERM and SIGKILL. The last window is stored in 3 of them, once requests have ended."
  type        = number
  default     = 30
}

variable "log_retention_days" {
  description = "How long CloudWatch keeps the sample app's log."
  type        = number
  default     = 30
}
