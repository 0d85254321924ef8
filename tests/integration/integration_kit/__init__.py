"""What the integration tests share: servers as children, an S3 server with faults, readers of what came out."""
