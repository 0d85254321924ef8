variable "name" {
  description = "What cluster, service, roles and log group are called after."
  type        = string

  validation {
    # A role's name has 64 at most, and one of them ends with -execution.
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9_-]{0,53}$", var.name))
    error_message = "name = \"${var.name}\" cannot name an ECS service and its roles: use letters, digits, '_' and '-', at most 54."
  }
}

variable "image" {
  description = "The image built from the Dockerfile."
  type        = string
}

variable "task_role_arn" {
  description = "What the tasks run as."
  type        = string
}

variable "profiling" {
  description = "What the module profiled_service says of the container."
  type = object({
    arguments  = list(string)
    settings   = list(object({ name = string, value = string }))
    secrets    = list(object({ name = string, valueFrom = string }))
    spool      = object({ directory = string, mib = number })
    memory_mib = number
  })
}

variable "token_key_arn" {
  description = "The KMS key of the token, when it is not the account's own default key."
  type        = string
  default     = null
}

variable "subnet_ids" {
  description = "Where the tasks run."
  type        = list(string)
}

variable "security_group_ids" {
  description = "What the tasks may be reached by."
  type        = list(string)
}

variable "assign_public_ip" {
  description = "Whether tasks get a public address."
  type        = bool
}

variable "port" {
  description = "Where the app listens."
  type        = number

  validation {
    condition     = var.port >= 1024 && var.port <= 65535 && floor(var.port) == var.port
    error_message = "port = ${var.port} is none that the container's user may open: use 1024 to 65535."
  }
}

variable "desired_count" {
  description = "How many tasks run."
  type        = number

  validation {
    condition     = var.desired_count >= 0 && floor(var.desired_count) == var.desired_count
    error_message = "desired_count = ${var.desired_count} is no number of tasks: use 0 or more."
  }
}

variable "cpu" {
  description = "CPU units of a task."
  type        = number

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.cpu)
    error_message = "cpu = ${var.cpu} is no size of Fargate: use 256, 512, 1024, 2048 or 4096."
  }
}

variable "memory" {
  description = "Memory of a task in MiB."
  type        = number

  validation {
    condition = contains(lookup({
      256  = [512, 1024, 2048]
      512  = range(1024, 4097, 1024)
      1024 = range(2048, 8193, 1024)
      2048 = range(4096, 16385, 1024)
      4096 = range(8192, 30721, 1024)
    }, var.cpu, [var.memory]), var.memory)
    error_message = "memory = ${var.memory} does not go with cpu = ${var.cpu} on Fargate: use 512, 1024 or 2048 with 256; with more, 2 to 8 times the cpu in steps of 1024, at most 30720."
  }
}

variable "stop_timeout" {
  description = "Seconds between SIGTERM and SIGKILL."
  type        = number

  validation {
    condition     = var.stop_timeout >= 10 && var.stop_timeout <= 120
    error_message = "stop_timeout = ${var.stop_timeout} is out of range: a last upload takes up to 3 seconds after the last request, and Fargate waits 120 at most; use 10 to 120."
  }
}

variable "log_retention_days" {
  description = "How long CloudWatch keeps the log."
  type        = number
}

variable "tags" {
  description = "Tags of everything in here."
  type        = map(string)
}
