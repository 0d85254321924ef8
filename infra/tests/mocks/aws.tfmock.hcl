mock_data "aws_caller_identity" {
  defaults = {
    account_id = "123456789012"
    arn        = "arn:aws:iam::123456789012:user/operator"
  }
}

mock_data "aws_region" {
  defaults = {
    region = "eu-west-1"
  }
}
