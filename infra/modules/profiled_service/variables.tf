# What cannot be used is refused here, before a task is started with it: by the rules of profiling_middleware/config.py.

variable "environment" {
  description = "dev, staging, prod, …: PROFILE_ENVIRONMENT."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,31}$", var.environment))
    error_message = "environment = \"${var.environment}\" cannot end a bucket's name: use lower-case letters, digits and '-', such as prod."
  }
}

variable "service_name" {
  description = "Whose profiles these are: the {service} in profiles/{service}/, and the only prefix that may be written."
  type        = string

  validation {
    # A '*' in here would be a permission to write everywhere.
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", var.service_name))
    error_message = "service_name = \"${var.service_name}\" cannot be part of a key: use letters, digits, '.', '_' and '-', at most 128."
  }
}

variable "bucket" {
  description = "The bucket's whole name, with the environment at its end."
  type        = string

  validation {
    condition     = endswith(var.bucket, "-${var.environment}")
    error_message = "bucket = \"${var.bucket}\" does not end with -${var.environment}: the profiler would add that and write elsewhere."
  }

  validation {
    # A '*' in here would be a permission to write into other buckets.
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket)) && !strcontains(var.bucket, "..")
    error_message = "bucket = \"${var.bucket}\" is no S3 bucket name: use 3 to 63 of a-z, 0-9, '.', '-'."
  }
}

variable "bucket_owner" {
  description = "The account that must own the bucket, when it is another one than this."
  type        = string
  default     = null

  validation {
    condition     = var.bucket_owner == null || can(regex("^[0-9]{12}$", var.bucket_owner))
    error_message = "bucket_owner = \"${coalesce(var.bucket_owner, "-")}\" is no AWS account: write its 12 digits."
  }
}

variable "task_role_name" {
  description = "The role that the service's tasks run as; it gets the permission to upload."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@-]{1,64}$", var.task_role_name))
    error_message = "task_role_name = \"${var.task_role_name}\" is no role's name: give what stands behind the last '/' of its ARN."
  }
}

variable "enabled" {
  description = "Whether the service profiles all the time."
  type        = bool
}

variable "profile_interval" {
  description = "Window start to window start, a Go duration such as 5m."
  type        = string
  default     = "5m"

  validation {
    condition     = can(timeadd("2000-01-01T00:00:00Z", var.profile_interval))
    error_message = "profile_interval = \"${var.profile_interval}\" is not a duration: write a number with a unit, such as 90s, 5m, 1h30m or 1.5h."
  }

  validation {
    # Terraform reads durations as Go does, and so as the profiler does. One that is none has its own message.
    condition = try(timecmp(
      timeadd("2000-01-01T00:00:00Z", var.profile_interval), timeadd("2000-01-01T00:00:00Z", var.profile_duration)
    ) >= 0, true)
    error_message = "profile_interval = \"${var.profile_interval}\" is shorter than profile_duration (${var.profile_duration}): windows may not overlap, so use ${var.profile_duration} or more, or shorten profile_duration."
  }

  validation {
    condition = try(timecmp(
      timeadd("2000-01-01T00:00:00Z", var.profile_interval), timeadd("2000-01-01T00:00:00Z", "8760h")
    ) <= 0, true)
    error_message = "profile_interval = \"${var.profile_interval}\" is out of range: use at most 8760h."
  }
}

variable "profile_duration" {
  description = "Length of a window, a Go duration such as 2m."
  type        = string
  default     = "2m"

  validation {
    condition     = can(timeadd("2000-01-01T00:00:00Z", var.profile_duration))
    error_message = "profile_duration = \"${var.profile_duration}\" is not a duration: write a number with a unit, such as 90s, 5m, 1h30m or 1.5h."
  }

  validation {
    condition     = try(timecmp(timeadd("2000-01-01T00:00:00Z", var.profile_duration), "2000-01-01T00:00:01Z") >= 0, true)
    error_message = "profile_duration = \"${var.profile_duration}\" is out of range: use 1s or more, at most 8760h."
  }
}

variable "profile_types" {
  description = "Which kinds a window captures."
  type        = list(string)
  default     = ["cpu", "block", "mutex", "trace"]

  validation {
    condition     = length(var.profile_types) > 0 && length(setsubtract(var.profile_types, ["cpu", "wall", "block", "mutex", "trace"])) == 0
    error_message = "profile_types = \"${join(",", var.profile_types)}\" is not what can be captured: name some of cpu, wall, block, mutex, trace."
  }

  validation {
    condition     = length(distinct(var.profile_types)) == length(var.profile_types)
    error_message = "profile_types = \"${join(",", var.profile_types)}\" names a kind twice: name each once."
  }
}

variable "token_arn" {
  description = "ARN of the Secrets Manager secret (with :key:: behind it if it is JSON) or SSM parameter with the token."
  type        = string
  default     = null
  sensitive   = true # so that no message shows it: it may be the token itself, by mistake (see the output container)
}

variable "spool_directory" {
  description = "Where captures wait while S3 is away (PROFILE_SPOOL_DIR): a volume that outlives a restart of the container, and that the service's user may write."
  type        = string
  default     = "/var/spool/profiling"

  validation {
    condition     = can(regex("^/[^/]", var.spool_directory))
    error_message = "spool_directory = \"${var.spool_directory}\" is no place for a volume: use an absolute path."
  }
}

variable "spool_mib" {
  description = "How much may wait there, in MiB; a trace that is being taken has as much again."
  type        = number
  default     = 64

  validation {
    condition     = var.spool_mib >= 1 && floor(var.spool_mib) == var.spool_mib
    error_message = "spool_mib = ${var.spool_mib} is too small to hold captures: use a whole number of MiB, 1 or more."
  }
}
