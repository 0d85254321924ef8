variable "environment" {
  description = "dev, staging, prod, …: part of the alarms' names."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,31}$", var.environment))
    error_message = "environment = \"${var.environment}\" cannot be part of a name: use lower-case letters, digits and '-', such as prod."
  }
}

variable "service_name" {
  description = "Whose uploads these are: part of the alarms' names."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", var.service_name))
    error_message = "service_name = \"${var.service_name}\" cannot be part of a name: use letters, digits, '.', '_' and '-', at most 128."
  }
}

variable "log_group_name" {
  description = "The CloudWatch log group that the service writes to; of the sample app: the output log_group_name of infra/."
  type        = string

  validation {
    condition     = can(regex("^[.A-Za-z0-9_/#-]{1,512}$", var.log_group_name))
    error_message = "log_group_name = \"${var.log_group_name}\" is no log group's name: use letters, digits and '_', '-', '/', '.', '#', as in /ecs/checkout."
  }
}

variable "topic_arns" {
  description = "SNS topics that hear of uploads that fail, that they work again, of a spool that cannot be used and of a service that is not profiled."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.topic_arns : can(regex("^arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]{12}:.+$", arn))])
    error_message = "topic_arns = \"${join(",", var.topic_arns)}\" names what is no SNS topic: write arn:aws:sns:{region}:{account}:{topic}."
  }
}

variable "tags" {
  description = "Tags of the alarms, besides environment and service."
  type        = map(string)
  default     = {}
}
