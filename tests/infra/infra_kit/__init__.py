"""What the tests of the infrastructure share: Terraform on a copy of infra/, and who may do what in a moto server."""
