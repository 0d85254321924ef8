output "endpoint_id" {
  description = "The endpoint, for policies of buckets that let in nothing else (aws:sourceVpce)."
  value       = aws_vpc_endpoint.s3.id
}
