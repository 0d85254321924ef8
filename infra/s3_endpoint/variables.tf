variable "vpc_id" {
  description = "The VPC that gets a gateway endpoint for S3, which is free; NAT gateways charge for each byte of a profile. A VPC that has one needs no other."
  type        = string

  validation {
    condition     = can(regex("^vpc-[0-9a-f]+$", var.vpc_id))
    error_message = "vpc_id = \"${var.vpc_id}\" is no VPC: write its id, such as vpc-0a1b2c3d."
  }
}

variable "route_table_ids" {
  description = "The route tables of the tasks' subnets."
  type        = set(string)

  validation {
    condition     = length(var.route_table_ids) > 0
    error_message = "route_table_ids is empty, and nothing would go through the endpoint: name the route tables of the tasks' subnets."
  }
}

variable "tags" {
  description = "Tags of the endpoint."
  type        = map(string)
  default     = {}
}
