# The free way from a VPC to S3.

resource "aws_vpc_endpoint" "s3" {
  count = var.s3_endpoint == null ? 0 : 1

  vpc_id            = var.s3_endpoint.vpc_id
  service_name      = "com.amazonaws.${data.aws_region.current.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = var.s3_endpoint.route_table_ids
  # No policy of its own: everything in these subnets reaches S3 through it, the layers of images in ECR too.
  tags = local.tags
}
