resource "aws_vpc_endpoint" "s3" {
  vpc_id            = var.vpc_id
  service_name      = "com.amazonaws.${data.aws_region.current.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = var.route_table_ids
  # No policy of its own: everything in these subnets reaches S3 through it, the layers of images in ECR too.
  tags = var.tags
}
